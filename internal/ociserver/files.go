// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package ociserver

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
)

// files is where a server keeps its content. Names are slash-separated paths.
type files interface {
	open(name string) (io.ReadSeekCloser, error)
	appendTo(name string) (io.WriteCloser, error) // creates it
	rename(from, to string) error
	link(from, to string) error
	remove(name string) error
	list(dir string) ([]string, error) // base names, sorted; none if dir is missing
}

type memoryFiles struct {
	mu    sync.Mutex
	files map[string][]byte
}

func (m *memoryFiles) open(name string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.files[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return memoryFile{bytes.NewReader(b)}, nil
}

type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

func (m *memoryFiles) appendTo(name string) (io.WriteCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.files[name] == nil {
		m.files[name] = []byte{}
	}
	return &memoryAppender{m, name}, nil
}

type memoryAppender struct {
	files *memoryFiles
	name  string
}

func (a *memoryAppender) Write(p []byte) (int, error) {
	a.files.mu.Lock()
	defer a.files.mu.Unlock()
	a.files.files[a.name] = append(a.files.files[a.name], p...)
	return len(p), nil
}

func (a *memoryAppender) Close() error { return nil }

func (m *memoryFiles) rename(from, to string) error {
	if err := m.link(from, to); err != nil {
		return err
	}
	return m.remove(from)
}

func (m *memoryFiles) link(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.files[from]
	if !ok {
		return fs.ErrNotExist
	}
	m.files[to] = slices.Clip(b)
	return nil
}

func (m *memoryFiles) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[name]; !ok {
		return fs.ErrNotExist
	}
	delete(m.files, name)
	return nil
}

func (m *memoryFiles) list(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.files {
		if base, ok := strings.CutPrefix(name, dir+"/"); ok && !strings.Contains(base, "/") {
			names = append(names, base)
		}
	}
	slices.Sort(names)
	return names, nil
}

type diskFiles struct{ root *os.Root }

func (d diskFiles) open(name string) (io.ReadSeekCloser, error) {
	f, err := d.root.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d diskFiles) appendTo(name string) (io.WriteCloser, error) {
	if err := d.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return nil, err
	}
	return d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
}

func (d diskFiles) rename(from, to string) error {
	if err := d.root.MkdirAll(path.Dir(to), 0o777); err != nil {
		return err
	}
	return d.root.Rename(from, to)
}

func (d diskFiles) link(from, to string) error {
	if err := d.root.MkdirAll(path.Dir(to), 0o777); err != nil {
		return err
	}
	if err := d.root.Link(from, to); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (d diskFiles) remove(name string) error { return d.root.Remove(name) }

func (d diskFiles) list(dir string) ([]string, error) {
	f, err := d.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}
