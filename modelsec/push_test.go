// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// TestUnsuitableSourcesAreRefused before anything is written.
func TestUnsuitableSourcesAreRefused(t *testing.T) {
	layers := make(fstest.MapFS)
	shared := make([]byte, 1<<20)
	for i := range 401 {
		layers[fmt.Sprintf("m%03d.safetensors", i)] = &fstest.MapFile{Data: shared}
	}
	for name, src := range map[string]fstest.MapFS{
		"Nothing":      {},
		"OnlyExcluded": source(map[string]int{".git/HEAD": 3, "__pycache__/x.pyc": 4}),
		"Index":        source(map[string]int{indexName: 5}),
		"Packed":       source(map[string]int{".modelsec-packed/weight-00001.tar": 5}),
		"Device":       source(map[string]int{"nul.bin": 5}),
		"CaseClash":    source(map[string]int{"a.bin": 5, "A.bin": 6}),
		"Colon":        source(map[string]int{"a:b": 5}),
		"Pipe":         {"p": &fstest.MapFile{Mode: fs.ModeNamedPipe}},
		"Socket":       {"s": &fstest.MapFile{Mode: fs.ModeSocket}},
		"Layers":       layers,
	} {
		t.Run(name, func(t *testing.T) {
			var writes journal
			watched := &evil{Opener: registry.NewMemory(), before: func(_ context.Context, op, _ string) error {
				writes.add(op)
				return nil
			}}
			_, err := (&modelsec.Client{Registry: watched}).Push(t.Context(), tagged, src, nil)
			refused(t, err, modelsec.ErrSource, modelsec.ErrLimit)
			if got := writes.all(); len(got) != 0 {
				t.Errorf("the registry was asked to %q", got)
			}
		})
	}
}

func TestContradictoryOptionsAreRefused(t *testing.T) {
	p := newParty(t)
	fileDigests := func(context.Context, map[string]digest.Digest) error { return nil }
	for name, push := range map[string]struct {
		ref string
		o   *modelsec.PushOptions
	}{
		"StatementsWithoutSigner": {tagged, &modelsec.PushOptions{Statements: []provenance.Statement{slsa(t)}}},
		"Digest":                  {repository + "@" + string(digestOf(nil)), nil},
		"LayoutWithoutName":       {"oci:" + t.TempDir(), &modelsec.PushOptions{Signer: p.signer}},
		"NegativeLayerSize":       {tagged, &modelsec.PushOptions{LayerSize: -1}},
		"LayerSizeOver8GiB":       {tagged, &modelsec.PushOptions{LayerSize: 8<<30 + 1}},
		"Pattern":                 {tagged, &modelsec.PushOptions{Exclude: []string{"["}}},
		"NoReference":             {"", nil},
		"FileDigestsEncrypted":    {tagged, &modelsec.PushOptions{FileDigests: fileDigests, Recipients: []encrypt.Recipient{p.identity.Recipient()}}},
		"FileDigestsOfParts":      {tagged, &modelsec.PushOptions{FileDigests: fileDigests, LayerSize: 1 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := (&modelsec.Client{Registry: registry.NewMemory()}).Push(t.Context(), push.ref, small(), push.o)
			if err == nil {
				t.Error("got no error")
			}
		})
	}
}

// TestLinksArePushedOnlyOnRequest: a link may lead out of the directory.
func TestLinksArePushedOnlyOnRequest(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	err := errors.Join(
		os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600),
		os.WriteFile(filepath.Join(dir, "model.bin"), []byte("weights"), 0o600),
		os.Symlink(filepath.Join(outside, "secret"), filepath.Join(dir, "link.json")))
	if err != nil {
		t.Fatal(err)
	}
	c := &modelsec.Client{Registry: registry.NewMemory()}
	_, err = c.Push(t.Context(), tagged, os.DirFS(dir), nil)
	refused(t, err, modelsec.ErrSource)
	contains(t, err, "link.json", "FollowSymlinks")
	if _, err := c.Push(t.Context(), tagged, os.DirFS(dir), &modelsec.PushOptions{Exclude: []string{"link.json"}}); err != nil {
		t.Error(err)
	}
	if _, err := c.Push(t.Context(), tagged, os.DirFS(dir), &modelsec.PushOptions{FollowSymlinks: true}); err != nil {
		t.Error(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "tree")); err != nil {
		t.Fatal(err)
	}
	_, err = c.Push(t.Context(), tagged, os.DirFS(dir), &modelsec.PushOptions{FollowSymlinks: true})
	refused(t, err, modelsec.ErrSource)
}

func TestExcludedFilesStayBehind(t *testing.T) {
	memory := registry.NewMemory()
	src := source(map[string]int{"model.bin": 5, ".git/config": 6, "a/.DS_Store": 7, "logs/x/y.log": 8, "a/notes.txt": 9})
	d := push(t, &modelsec.Client{Registry: memory}, tagged, src, &modelsec.PushOptions{Exclude: []string{"logs", "*.txt"}})
	m := openShelf(t, memory, repository).manifest(d)
	if len(m.Layers) != 2 || m.Layers[0].Annotations[pathKey] != "model.bin" {
		t.Errorf("%d layers, the first is %q", len(m.Layers), m.Layers[0].Annotations[pathKey])
	}
}

// countingFS counts the bytes that are read of every file, and may change one
// while it is read.
type countingFS struct {
	fs.FS
	mu     sync.Mutex
	read   map[string]int64
	change func(name string, off int64, info fs.FileInfo) fs.FileInfo
}

func (c *countingFS) Open(name string) (fs.File, error) {
	f, err := c.FS.Open(name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return f, err
	}
	return &countingFile{File: f, name: name, c: c}, nil
}

// countingFile has no ReaderAt: it is read in order, from the beginning.
type countingFile struct {
	fs.File
	name string
	c    *countingFS
	off  int64
}

func (f *countingFile) Read(p []byte) (int, error) {
	n, err := f.File.Read(p)
	f.c.mu.Lock()
	f.c.read[f.name] += int64(n)
	f.c.mu.Unlock()
	f.off += int64(n)
	return n, err
}

func (f *countingFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	if err == nil && f.c.change != nil {
		info = f.c.change(f.name, f.off, info)
	}
	return info, err
}

// TestSourceIsReadOnce, also where it cannot be read in parts.
func TestSourceIsReadOnce(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		for _, layerSize := range []int64{0, 4 * segment} {
			t.Run(fmt.Sprintf("%s/%d", name, layerSize), func(t *testing.T) {
				src := large()
				counting := &countingFS{FS: src, read: make(map[string]int64)}
				o := options()
				o.LayerSize = layerSize
				memory := registry.NewMemory()
				push(t, p.client(memory), tagged, counting, o)
				for file, n := range counting.read {
					if want := int64(len(src[file].Data)); layerSize == 0 && n != want {
						t.Errorf("%d bytes of %s were read, want %d", n, file, want)
					}
				}
				dest := filepath.Join(t.TempDir(), "model")
				if _, err := p.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
					t.Fatal(err)
				}
				sameFiles(t, dest, src)
			})
		}
	}
}

// changedInfo is the info of a file that was written since.
type changedInfo struct {
	fs.FileInfo
	size int64
	time time.Time
}

func (i changedInfo) Size() int64        { return i.size }
func (i changedInfo) ModTime() time.Time { return i.time }

// TestSourceThatChangesIsNotAttested.
func TestSourceThatChangesIsNotAttested(t *testing.T) {
	p := newParty(t)
	for name, change := range map[string]func(name string, off int64, info fs.FileInfo) fs.FileInfo{
		"BeforeItIsRead": func(_ string, _ int64, info fs.FileInfo) fs.FileInfo {
			return changedInfo{info, info.Size(), info.ModTime().Add(1)}
		},
		"WhileItIsRead": func(_ string, off int64, info fs.FileInfo) fs.FileInfo {
			if off > segment {
				return changedInfo{info, info.Size(), info.ModTime().Add(time.Second)}
			}
			return info
		},
		"Grows": func(_ string, off int64, info fs.FileInfo) fs.FileInfo {
			if off > 0 {
				return changedInfo{info, info.Size() + 1, info.ModTime()}
			}
			return info
		},
	} {
		for profile, options := range p.profiles() {
			t.Run(name+"/"+profile, func(t *testing.T) {
				memory := registry.NewMemory()
				c := p.client(memory)
				before := push(t, c, tagged, small(), p.options(nil))
				_, err := c.Push(t.Context(), tagged, &countingFS{FS: large(), read: make(map[string]int64), change: change}, options())
				refused(t, err, modelsec.ErrSource)
				contains(t, err, "changed while it was pushed")
				if got := openShelf(t, memory, repository).resolve("v3"); got.Digest != before.Digest {
					t.Error("the tag was moved")
				}
			})
		}
	}
}

// TestSourceThatShrinksIsNotAttested: the file ends before its listed size.
func TestSourceThatShrinksIsNotAttested(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "model.bin")
	if err := os.WriteFile(name, make([]byte, 3*segment), 0o600); err != nil {
		t.Fatal(err)
	}
	cut := &evil{Opener: registry.NewMemory(), before: func(_ context.Context, op, _ string) error {
		if op == "create" {
			return os.Truncate(name, segment)
		}
		return nil
	}}
	_, err := (&modelsec.Client{Registry: cut}).Push(t.Context(), tagged, os.DirFS(dir), nil)
	refused(t, err, modelsec.ErrSource)
}
