// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"path"
	"runtime"
	"sync"

	"github.com/opencontainers/go-digest"
)

// SignatureFile is the name under which a signature lies beside the files.
const SignatureFile = "model.sig"

// alwaysIgnored never count as files of a model, at the top of its directory
// alone (specification §6.2).
var alwaysIgnored = []string{".git", ".gitattributes", ".github", ".gitignore", SignatureFile}

// tree is the files of a model, before any was read.
type tree struct {
	fsys  fs.FS
	sizes map[string]int64
	// ignored are the files and directories that were left out.
	ignored []string
}

// oneFile is the tree of a model that is a single file.
func oneFile(fsys fs.FS, name string, links bool) (*tree, error) {
	if err := checkPath(name); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	info, err := fs.Lstat(fsys, name)
	if err != nil {
		return nil, err
	}
	size, err := sizeOf(fsys, name, fs.FileInfoToDirEntry(info), links)
	return &tree{fsys: fsys, sizes: map[string]int64{name: size}}, err
}

// list finds the files of a directory. Those that the signature lists are found
// whether they are ignored or not.
func list(ctx context.Context, fsys fs.FS, ignore []string, links bool, listed []Resource) (*tree, error) {
	t := &tree{fsys: fsys, sizes: make(map[string]int64)}
	ignored, needed := make(map[string]bool), make(map[string]bool)
	for _, p := range append(alwaysIgnored[:len(alwaysIgnored):len(alwaysIgnored)], ignore...) {
		ignored[p] = true
	}
	for _, r := range listed {
		for p := r.Path; p != "." && !needed[p]; p = path.Dir(p) {
			needed[p] = true
		}
	}
	covered := func(p string) bool {
		for ; p != "."; p = path.Dir(p) {
			if ignored[p] {
				return true
			}
		}
		return false
	}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case covered(p) && !needed[p]:
			t.ignored = append(t.ignored, p)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		if err := checkPath(p); err != nil {
			return err
		}
		t.sizes[p], err = sizeOf(fsys, p, d, links)
		return err
	})
	return t, err
}

// sizeOf admits regular files, and links to them where links count.
func sizeOf(fsys fs.FS, p string, d fs.DirEntry, links bool) (int64, error) {
	info, err := d.Info()
	if err == nil && links && d.Type()&fs.ModeSymlink != 0 {
		info, err = fs.Stat(fsys, p)
	}
	switch {
	case err != nil:
		return 0, err
	case info.Mode()&fs.ModeSymlink != 0:
		return 0, fmt.Errorf("%q is a symbolic link, which the signature does not allow", p)
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("%q is not a regular file", p)
	}
	return info.Size(), nil
}

// stretch is what one digest is over.
type stretch struct {
	path       string
	start, end int64 // of a shard; both zero for a whole file
	last       bool  // nothing may follow
}

// hashAll computes the digests of stretches, some at a time. The first error
// ends the rest.
func (t *tree) hashAll(ctx context.Context, stretches []stretch) ([]digest.Digest, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := make([]digest.Digest, len(stretches))
	next := make(chan int)
	var running sync.WaitGroup
	for range min(len(stretches), runtime.GOMAXPROCS(0)) {
		running.Go(func() {
			buffer := make([]byte, 256<<10)
			for i := range next {
				var err error
				if out[i], err = t.hash(ctx, stretches[i], buffer); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
feed:
	for i := range stretches {
		select {
		case next <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(next)
	running.Wait()
	return out, context.Cause(ctx)
}

// hash reads a stretch. One that is shorter than it should be has a digest like
// any other, which is not the one that was signed.
func (t *tree) hash(ctx context.Context, s stretch, buffer []byte) (digest.Digest, error) {
	f, err := t.fsys.Open(s.path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var from io.Reader = f
	if ra, ok := f.(io.ReaderAt); ok && s.start > 0 {
		from = io.NewSectionReader(ra, s.start, 1<<62)
	} else if s.start > 0 {
		if _, err := io.CopyN(io.Discard, f, s.start); err != nil && err != io.EOF {
			return "", fmt.Errorf("%q: %w", s.path, err)
		}
	}
	if s.end > 0 && !s.last {
		from = io.LimitReader(from, s.end-s.start)
	}
	h := sha256.New()
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := from.Read(buffer)
		h.Write(buffer[:n])
		switch {
		case err == io.EOF:
			return digest.NewDigest(digest.SHA256, h), nil
		case err != nil:
			return "", fmt.Errorf("%q: %w", s.path, err)
		}
	}
}
