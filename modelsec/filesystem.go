// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// FS presents the model as a file system. ctx governs every read through it.
// Files implement io.ReaderAt and io.Seeker; see ReaderAt for what a read does.
func (m *Model) FS(ctx context.Context) fs.FS {
	f := &modelFS{m: m, ctx: ctx, entries: map[string][]fs.DirEntry{".": nil}}
	for _, file := range m.Files() {
		f.add(file.Name, fileInfo{name: path.Base(file.Name), size: file.Size})
	}
	for _, entries := range f.entries {
		slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	}
	return f
}

// modelFS holds the context that it was made for, as fs.FS leaves no other way.
type modelFS struct {
	m       *Model
	ctx     context.Context
	entries map[string][]fs.DirEntry // of every directory
}

// add lists an entry in its directory, and the directory in its own.
func (f *modelFS) add(name string, info fileInfo) {
	dir := path.Dir(name)
	if _, ok := f.entries[dir]; !ok {
		f.entries[dir] = nil
		f.add(dir, fileInfo{name: path.Base(dir), dir: true})
	}
	f.entries[dir] = append(f.entries[dir], fs.FileInfoToDirEntry(info))
}

// Open implements fs.FS.
func (f *modelFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if entries, ok := f.entries[name]; ok {
		return &openDir{info: fileInfo{name: path.Base(name), dir: true}, entries: entries}, nil
	}
	i, err := f.m.file(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	r, err := f.m.ReaderAt(f.ctx, name)
	if err != nil {
		return nil, err
	}
	return &openFile{SectionReader: r, info: fileInfo{name: path.Base(name), size: f.m.content.files[i].Size}}, nil
}

// fileInfo is what the artifact says of a file: it has no times and no owners.
type fileInfo struct {
	name string
	size int64
	dir  bool
}

func (i fileInfo) Name() string       { return i.name }
func (i fileInfo) Size() int64        { return i.size }
func (i fileInfo) ModTime() time.Time { return time.Time{} }
func (i fileInfo) IsDir() bool        { return i.dir }
func (i fileInfo) Sys() any           { return nil }
func (i fileInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o555
	}
	return 0o444
}

type openFile struct {
	*io.SectionReader
	info fileInfo
}

func (f *openFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *openFile) Close() error               { return nil }

type openDir struct {
	info    fileInfo
	entries []fs.DirEntry
}

func (d *openDir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *openDir) Close() error               { return nil }
func (d *openDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.name, Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile.
func (d *openDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(d.entries) == 0 {
		return nil, io.EOF
	}
	if n <= 0 || n > len(d.entries) {
		n = len(d.entries)
	}
	out := d.entries[:n:n]
	d.entries = d.entries[n:]
	return out, nil
}
