// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/internal/pagecache"
)

// sourceFile is one file of the model as it was when the push began.
type sourceFile struct {
	path, role string
	size       int64
	modTime    time.Time
}

// defaultExcludes never belong to a model: version control and the bookkeeping
// of the tools that fetched it.
var defaultExcludes = []string{".git", ".gitattributes", ".gitignore", ".cache", ".DS_Store", "__pycache__"}

// listSource finds the files to push, in the order of FORMAT.md §2.2.
func listSource(ctx context.Context, src fs.FS, o *PushOptions) ([]sourceFile, error) {
	exclude := append(slices.Clone(defaultExcludes), o.Exclude...)
	if err := checkPatterns(exclude); err != nil {
		return nil, err
	}
	var files []sourceFile
	var paths []string
	err := fs.WalkDir(src, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case p == ".":
			return nil
		case matches(exclude, p) && d.IsDir():
			return fs.SkipDir
		case matches(exclude, p) || d.IsDir():
			return nil
		}
		info, err := sourceInfo(src, p, d, o.FollowSymlinks)
		if err != nil {
			return err
		}
		files = append(files, sourceFile{path: p, role: roleOf(p), size: info.Size(), modTime: info.ModTime()})
		paths = append(paths, p)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: no files to push", ErrSource)
	}
	if err := index.CheckPaths(paths); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	slices.SortFunc(files, func(a, b sourceFile) int {
		if c := slices.Index(index.Roles, a.role) - slices.Index(index.Roles, b.role); c != 0 {
			return c
		}
		if c := strings.Count(a.path, "/") - strings.Count(b.path, "/"); c != 0 {
			return c
		}
		return strings.Compare(a.path, b.path)
	})
	return files, nil
}

// sourceInfo admits regular files, and links to them where the caller allows
// links: a link may lead out of the directory the caller meant to publish.
func sourceInfo(src fs.FS, p string, d fs.DirEntry, follow bool) (fs.FileInfo, error) {
	if d.Type()&fs.ModeSymlink != 0 {
		if !follow {
			return nil, fmt.Errorf("%q is a symbolic link: set FollowSymlinks to push what it points to, or exclude it", p)
		}
		info, err := fs.Stat(src, p)
		if err != nil {
			return nil, err
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%q is a symbolic link to something that is not a regular file", p)
		}
		return info, nil
	}
	if !d.Type().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file", p)
	}
	return d.Info()
}

// roleOf guesses the ModelPack role of a file from its name. What no rule
// names is configuration: tokenizers, vocabularies and templates have too many
// endings to list, and every tool fetches that role with the weights.
func roleOf(p string) string {
	base := strings.ToLower(path.Base(p))
	switch stem, _, _ := strings.Cut(base, "."); stem {
	case "readme", "license", "licence", "notice", "changelog", "model_card", "modelcard":
		return "doc"
	}
	switch path.Ext(base) {
	case ".safetensors", ".gguf", ".ggml", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".onnx_data", ".h5", ".keras", ".npz", ".npy", ".msgpack", ".tflite", ".engine", ".pb", ".mlmodel", ".pkl":
		return "weight"
	case ".py", ".sh", ".ipynb", ".c", ".cc", ".cpp", ".cu", ".h", ".go", ".rs", ".js", ".ts":
		return "code"
	case ".md", ".rst", ".pdf", ".html", ".png", ".jpg", ".jpeg", ".svg", ".gif":
		return "doc"
	case ".parquet", ".arrow", ".jsonl", ".csv", ".tsv", ".tfrecord":
		return "dataset"
	}
	return "weight.config"
}

// matches reports whether a pattern matches the path, its last element, or one
// of the directories above it.
func matches(patterns []string, p string) bool {
	for {
		for _, pattern := range patterns {
			// The patterns were checked: an error is impossible.
			if ok, _ := path.Match(pattern, p); ok {
				return true
			}
			if ok, _ := path.Match(pattern, path.Base(p)); ok {
				return true
			}
		}
		if p = path.Dir(p); p == "." || p == "/" {
			return false
		}
	}
}

func checkPatterns(patterns []string) error {
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	return nil
}

// sourceReader reads a stretch of one source file and fails where the file is
// not the one that was listed, before or after: a digest over a file that
// changed under us would attest a model that never existed.
type sourceReader struct {
	f    fs.File
	r    io.Reader
	want sourceFile
	left int64
}

func openSource(src fs.FS, want sourceFile, offset, length int64) (*sourceReader, error) {
	f, err := src.Open(want.path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSource, err)
	}
	s := &sourceReader{f: f, r: f, want: want, left: length}
	if err := s.unchanged(); err != nil {
		f.Close()
		return nil, err
	}
	if ra, ok := f.(io.ReaderAt); ok {
		s.r = pagecache.NewReader(io.NewSectionReader(ra, offset, length), f, offset, length)
	} else if _, err := io.CopyN(io.Discard, f, offset); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: %q: %w", ErrSource, want.path, err)
	}
	return s, nil
}

func (s *sourceReader) unchanged() error {
	info, err := s.f.Stat()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSource, err)
	}
	if info.Size() != s.want.size || !info.ModTime().Equal(s.want.modTime) {
		return fmt.Errorf("%w: %q changed while it was pushed (%d bytes at %s, was %d at %s)", ErrSource, s.want.path,
			info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano), s.want.size, s.want.modTime.UTC().Format(time.RFC3339Nano))
	}
	return nil
}

// Read ends with io.EOF only after it found the file unchanged.
func (s *sourceReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		if err := s.unchanged(); err != nil {
			return 0, err
		}
		return 0, io.EOF
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case s.left == 0 || err == nil:
		return n, nil
	case err == io.EOF:
		return n, fmt.Errorf("%w: %q ended %d bytes early", ErrSource, s.want.path, s.left)
	}
	return n, fmt.Errorf("%w: %q: %w", ErrSource, s.want.path, err)
}

func (s *sourceReader) Close() error { return s.f.Close() }
