// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// memfds are models with files in one segment, in several layers, packed
// together, and of no bytes.
func memfds() fstest.MapFS {
	src := tensorModel()
	src["empty.txt"] = &fstest.MapFile{}
	for i := range 301 {
		src[fmt.Sprintf("parts/%03d.json", i)] = &fstest.MapFile{Data: noise(uint64(i), 100+i)}
	}
	return src
}

func memfd(t *testing.T, m *modelsec.Model, name string) *os.File {
	t.Helper()
	f, err := m.Memfd(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestMemfdHoldsTheFile(t *testing.T) {
	src := memfds()
	opened(t, src, func(_ *modelsec.Client, o *modelsec.PushOptions) { o.LayerSize = 2 * segment }, func(t *testing.T, m *modelsec.Model) {
		for _, name := range []string{"model.safetensors", "empty.txt", "parts/000.json", "parts/300.json", "config.json"} {
			f := memfd(t, m, name)
			if err := modelsec.CheckSealed(f); err != nil {
				t.Error(err)
			}
			if b, err := io.ReadAll(f); err != nil || !bytes.Equal(b, src[name].Data) {
				t.Errorf("%s: %d bytes, %v", name, len(b), err)
			}
		}
		_, err := m.Memfd(t.Context(), "missing")
		refused(t, err, fs.ErrNotExist)
	})
}

// TestMemfdCannotBeChanged tries what another process could.
func TestMemfdCannotBeChanged(t *testing.T) {
	src := tensorModel()
	opened(t, src, nil, func(t *testing.T, m *modelsec.Model) {
		f := memfd(t, m, "model.safetensors")
		again, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDWR, 0)
		if err == nil {
			defer again.Close()
		} else {
			again = f
		}
		for name, attempt := range map[string]func(f *os.File) error{
			"write": func(f *os.File) error { _, err := f.WriteAt([]byte("x"), 9); return err },
			"append": func(f *os.File) error {
				_, err := f.WriteAt([]byte("x"), int64(len(src["model.safetensors"].Data)))
				return err
			},
			"shrink":   func(f *os.File) error { return f.Truncate(1) },
			"grow":     func(f *os.File) error { return f.Truncate(1 << 30) },
			"punch":    func(f *os.File) error { return syscall.Fallocate(int(f.Fd()), 1|2, 0, 4096) },
			"allocate": func(f *os.File) error { return syscall.Fallocate(int(f.Fd()), 0, 0, 1<<30) },
			"map": func(f *os.File) error {
				b, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
				if err == nil {
					b[0]++
					syscall.Munmap(b)
				}
				return err
			},
		} {
			for _, f := range []*os.File{f, again} {
				if err := attempt(f); !errors.Is(err, syscall.EPERM) {
					t.Errorf("%s: got %v, want EPERM", name, err)
				}
			}
		}
		m.Close() // the file outlives the model
		b := make([]byte, len(src["model.safetensors"].Data))
		if _, err := f.ReadAt(b, 0); err != nil || !bytes.Equal(b, src["model.safetensors"].Data) {
			t.Errorf("the file was changed: %v", err)
		}
	})
}

// TestMemfdIsHandedToAnotherProcess: by descriptor, and a write there fails.
func TestMemfdIsHandedToAnotherProcess(t *testing.T) {
	src := tensorModel()
	opened(t, src, nil, func(t *testing.T, m *modelsec.Model) {
		f := memfd(t, m, "model.safetensors")
		child := exec.Command("sh", "-c", `cat <&3 && if printf x 2>/dev/null >&3; then exit 9; fi`)
		child.ExtraFiles = []*os.File{f}
		got, err := child.Output()
		if err != nil || !bytes.Equal(got, src["model.safetensors"].Data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

// TestMemfdChangedBeforeTheSealIsRefused: another process of the same user may
// open the file while it is written. What it does then does not get sealed.
func TestMemfdChangedBeforeTheSealIsRefused(t *testing.T) {
	p := newParty(t)
	src := model(map[string][]byte{"model.safetensors": tensorFile(1, weights{"a", []int64{40 * segment}})})
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			o := options()
			o.LayerSize = segment // one request for each
			push(t, p.client(memory), tagged, src, o)
			attacker := &evil{Opener: memory}
			c := p.client(attacker)
			c.MemoryLimit = 1 << 20 // fewer streams than requests
			m := must(c.Open(t.Context(), tagged, p.policy()))
			defer m.Close()
			var mu sync.Mutex
			changed := false
			attacker.before = func(_ context.Context, op, _ string) error {
				mu.Lock()
				defer mu.Unlock()
				if op == "fetch" && !changed {
					changed = flipMemfd(t)
				}
				return nil
			}
			f, err := m.Memfd(t.Context(), "model.safetensors")
			if !changed {
				t.Fatal("nothing was changed while the file was written")
			}
			refused(t, err, modelsec.ErrDigest)
			contains(t, err, "before the file was sealed")
			if f != nil {
				t.Error("a file that was changed was handed out")
			}
		})
	}
}

// flipMemfd changes a byte that was written to a file in memory.
func flipMemfd(t *testing.T) (changed bool) {
	for _, f := range memfdsOpen(t) {
		defer f.Close()
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
		if at := bytes.IndexFunc(b, func(r rune) bool { return r != 0 }); err == nil && at >= 0 && !changed {
			_, err := f.WriteAt([]byte{b[at] ^ 1}, int64(at))
			changed = err == nil
		}
	}
	return changed
}

// memfdsOpen opens the unsealed files in memory of this process.
func memfdsOpen(t *testing.T) (files []*os.File) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join("/proc/self/fd", e.Name())
		if target, err := os.Readlink(path); err == nil && strings.HasPrefix(target, "/memfd:modelsec") {
			if f, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
				files = append(files, f)
			}
		}
	}
	return files
}

func TestFailedMemfdLeavesNothing(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, large(), p.options(p.recipients()))
	l := openShelf(t, memory, repository).manifest(d).Layers[0]
	inBubble(t, func(t *testing.T) {
		bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
			if d.Digest == l.Digest {
				b = bytes.Clone(b)
				b[head(l)+2*stride(l)+9] ^= 1
			}
			return b
		}}
		m := must(p.client(bad).Open(t.Context(), tagged, p.policy()))
		defer m.Close()
		f, err := m.Memfd(t.Context(), "model.safetensors")
		refused(t, err, modelsec.ErrDigest)
		if f != nil || len(memfdsOpen(t)) != 0 {
			t.Error("a file is still open")
		}
	})
}

func TestCheckSealedRefusesOtherFiles(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := modelsec.CheckSealed(f); !errors.Is(err, modelsec.ErrConfig) {
		t.Errorf("got %v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := modelsec.CheckSealed(r); !errors.Is(err, modelsec.ErrConfig) {
		t.Errorf("got %v", err)
	}
}
