// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"testing/iotest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// opened opens a model in either profile.
func opened(t *testing.T, src fstest.MapFS, change func(c *modelsec.Client, o *modelsec.PushOptions), run func(t *testing.T, m *modelsec.Model)) {
	t.Helper()
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			c, o := p.client(memory), options()
			if change != nil {
				change(c, o)
			}
			push(t, p.client(memory), tagged, src, o)
			m, err := c.Open(t.Context(), tagged, p.policy())
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			run(t, m)
		})
	}
}

func TestFSKeepsItsContract(t *testing.T) {
	src := source(map[string]int{"model.safetensors": 900, "a/b/c.json": 10, "a/d.json": 0, "a/b/e.bin": 1000})
	opened(t, src, nil, func(t *testing.T, m *modelsec.Model) {
		if err := fstest.TestFS(m.FS(t.Context()), slices.Collect(maps.Keys(src))...); err != nil {
			t.Error(err)
		}
		for name, f := range src {
			r, err := m.ReaderAt(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, f.Data); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"", "/", "../x", "a/../model.safetensors", "missing"} {
			if _, err := m.FS(t.Context()).Open(name); !errors.Is(err, fs.ErrInvalid) && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("open %q: %v", name, err)
			}
		}
		if _, err := m.ReaderAt(t.Context(), "missing"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want ErrNotExist", err)
		}
	})
}

// TestReadAtReadsWhatIsThere compares random reads, some at the same time, with
// the file. The model has one file in several layers, and one in memory that
// has no room for a cache.
func TestReadAtReadsWhatIsThere(t *testing.T) {
	src := large()
	for name, memory := range map[string]int64{"Roomy": 0, "Tight": 300 << 10} {
		t.Run(name, func(t *testing.T) {
			change := func(c *modelsec.Client, o *modelsec.PushOptions) {
				c.MemoryLimit, o.LayerSize = memory, 5*segment
			}
			opened(t, src, change, func(t *testing.T, m *modelsec.Model) {
				r, err := m.ReaderAt(t.Context(), "model.safetensors")
				if err != nil {
					t.Fatal(err)
				}
				want := src["model.safetensors"].Data
				var readers sync.WaitGroup
				for seed := range uint64(4) {
					readers.Go(func() {
						random := rand.New(rand.NewPCG(seed, 1))
						for range 50 {
							off := random.Int64N(int64(len(want)) + 10)
							p := make([]byte, random.IntN(3*segment))
							n, err := r.ReadAt(p, off)
							end := min(off+int64(len(p)), int64(len(want)))
							exp := want[min(off, int64(len(want))):max(end, min(off, int64(len(want))))]
							if !bytes.Equal(p[:n], exp) || (n < len(p)) != (err == io.EOF) || err != nil && err != io.EOF {
								t.Errorf("%d bytes at %d: got %d, %v", len(p), off, n, err)
								return
							}
						}
					})
				}
				readers.Wait()
				if _, err := r.ReadAt(make([]byte, 1), -1); err == nil {
					t.Error("a negative offset was accepted")
				}
			})
		})
	}
}

// TestNearReadsFetchOnce: what a read needed only in part is kept for the next.
func TestNearReadsFetchOnce(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, large(), p.options(p.recipients()))
	counting := &evil{Opener: memory}
	m, err := p.client(counting).Open(t.Context(), tagged, p.policy())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	r, err := m.ReaderAt(t.Context(), "model.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < 4*segment; off += 1000 {
		if _, err := r.ReadAt(make([]byte, 1000), off); err != nil {
			t.Fatal(err)
		}
	}
	if n := counting.fetched.Load(); n > 6*(segment+32) {
		t.Errorf("%d bytes were fetched to read %d in small pieces", n, 4*segment)
	}
}

// TestFailedReadLeavesZeros is K45: after an error the buffer holds nothing,
// verified or not.
func TestFailedReadLeavesZeros(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, large(), options())
			l := openShelf(t, memory, repository).manifest(d).Layers[0]
			inBubble(t, func(t *testing.T) {
				bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
					if d.Digest == l.Digest {
						b = bytes.Clone(b)
						b[head(l)+2*stride(l)+9] ^= 1
					}
					return b
				}}
				m, err := p.client(bad).Open(t.Context(), tagged, p.policy())
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				r, err := m.ReaderAt(t.Context(), "model.safetensors")
				if err != nil {
					t.Fatal(err)
				}
				buf := bytes.Repeat([]byte{0xee}, 5*segment)
				n, err := r.ReadAt(buf, 100)
				refused(t, err, modelsec.ErrDigest)
				if n != 0 || !bytes.Equal(buf, make([]byte, len(buf))) {
					t.Errorf("%d bytes, and the buffer is not zero", n)
				}
				if _, err := r.ReadAt(buf[:segment], 8*segment); err != nil {
					t.Errorf("a good segment after a bad one: %v", err)
				}
			})
		})
	}
}

// TestClosedModelIsClosed: Close refuses new reads, ends those that run and
// waits for them; it can be called again.
func TestClosedModelIsClosed(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, large(), p.options(p.recipients()))
	inBubble(t, func(t *testing.T) {
		var block sync.Map
		slow := &evil{Opener: memory, before: func(ctx context.Context, op, _ string) error {
			if _, on := block.Load("on"); on && op == "fetch" {
				<-ctx.Done()
				time.Sleep(time.Second)
				return context.Cause(ctx)
			}
			return nil
		}}
		c := p.client(slow)
		m, err := c.Open(t.Context(), tagged, p.policy())
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.ReaderAt(t.Context(), "model.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.ReadAt(make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
		block.Store("on", true)
		ended := make(chan error, 2)
		go func() {
			_, err := r.ReadAt(make([]byte, segment), 8*segment)
			ended <- err
		}()
		go func() { ended <- m.Extract(t.Context(), t.TempDir()+"/model", nil) }()
		settle()
		start := time.Now()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if time.Since(start) < time.Second {
			t.Error("Close did not wait for what it cancelled")
		}
		for range 2 {
			refused(t, <-ended, fs.ErrClosed)
		}
		if held, lent := c.Held(); held != 0 || lent != 0 {
			t.Errorf("%d and %d bytes are still in use", held, lent)
		}
		if err := m.Close(); err != nil {
			t.Errorf("a second Close: %v", err)
		}
		_, err = r.ReadAt(make([]byte, 1), 0)
		refused(t, err, fs.ErrClosed)
		_, err = m.ReaderAt(t.Context(), "config.json")
		refused(t, err, fs.ErrClosed)
		refused(t, m.Extract(t.Context(), t.TempDir()+"/model", nil), fs.ErrClosed)
		if _, err := m.FS(t.Context()).Open("config.json"); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
		if len(m.Files()) != 3 || !m.Report().Allowed {
			t.Error("what a closed model is can no longer be asked")
		}
	})
}

// TestMemoryLimitHolds: a client with little memory works or says ErrLimit, and
// many pulls that share it end.
func TestMemoryLimitHolds(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, src, options())
			worked := false
			for _, limit := range []int64{1, 1 << 10, 16 << 10, segment, 2 * segment, 3 * segment, 1 << 20} {
				c := p.client(memory)
				c.MemoryLimit = limit
				base := t.TempDir()
				errs := make(chan error)
				for i := range 4 {
					go func() {
						_, err := c.Pull(t.Context(), tagged, base+"/"+string(rune('a'+i)), p.policy(), nil)
						errs <- err
					}()
				}
				for range 4 {
					switch err := <-errs; {
					case err == nil:
						worked = true
					case !errors.Is(err, modelsec.ErrLimit):
						t.Errorf("limit %d: %v", limit, err)
					case limit == 1<<20:
						t.Errorf("1 MiB is too little for segments of 64 KiB: %v", err)
					}
				}
				if held, lent := c.Held(); held != 0 || lent != 0 {
					t.Errorf("limit %d: %d and %d bytes were not returned", limit, held, lent)
				}
			}
			if !worked {
				t.Error("no pull worked")
			}
			for _, limit := range []int64{1 << 10, 4 << 20} {
				c := p.client(registry.NewMemory())
				c.MemoryLimit = limit
				if _, err := c.Push(t.Context(), tagged, src, options()); err != nil && !errors.Is(err, modelsec.ErrLimit) || err != nil && limit == 4<<20 {
					t.Errorf("push with %d bytes: %v", limit, err)
				}
				if held, lent := c.Held(); held != 0 || lent != 0 {
					t.Errorf("push with %d bytes: %d and %d were not returned", limit, held, lent)
				}
			}
		})
	}
}
