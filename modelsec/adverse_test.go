// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestSegmentsOutOfPlaceAreRefused moves whole segments within the blob of a
// layer: each is genuine, and none is where it belongs.
func TestSegmentsOutOfPlaceAreRefused(t *testing.T) {
	eachRig(t, 6, func(t *testing.T, r *rig) {
		l := r.layers[0]
		h, n := head(l), stride(l)
		at := func(b []byte, k int64) []byte { return b[h+k*n : min(h+(k+1)*n, int64(len(b)))] }
		for name, change := range map[string]func(b []byte) []byte{
			"Swapped": func(b []byte) []byte {
				first := bytes.Clone(at(b, 1))
				copy(at(b, 1), at(b, 2))
				copy(at(b, 2), first)
				return b
			},
			"Duplicated": func(b []byte) []byte { copy(at(b, 3), at(b, 2)); return b },
			"Rotated":    func(b []byte) []byte { return append(b[:h:h], append(bytes.Clone(b[h+n:]), at(b, 0)...)...) },
			"LastLost":   func(b []byte) []byte { return b[:h+5*n] },
			"LastTwice":  func(b []byte) []byte { return append(b, at(b, 5)...) },
		} {
			t.Run(name, func(t *testing.T) {
				moved := &evil{Opener: remote(), content: func(d ocispec.Descriptor, b []byte) []byte {
					if d.Digest != l.Digest {
						return b
					}
					return change(bytes.Clone(b))
				}}
				base := t.TempDir()
				_, err := r.p.client(moved).Pull(t.Context(), r.ref, filepath.Join(base, "model"), r.p.policy(), nil)
				if name == "LastTwice" {
					// What follows the length that was signed is not even read.
					if err != nil {
						t.Error(err)
					}
					sameFiles(t, filepath.Join(base, "model"), r.src)
					return
				}
				refused(t, err, modelsec.ErrDigest, errTruncated)
				absent(t, filepath.Join(base, "model"))
			})
		}
	})
}

// TestFrozenTagIsRefusedOnceItsReleaseExpires: a registry that goes on serving
// the release of yesterday is believed for as long as the release said. What is
// pinned by digest is not asked about time.
func TestFrozenTagIsRefusedOnceItsReleaseExpires(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	o := p.options(nil)
	o.Expires = now.Add(time.Hour)
	publisher := p.client(memory)
	publisher.Now = func() time.Time { return now }
	d := push(t, publisher, tagged, small(), o)
	for _, test := range []struct {
		ref  string
		at   time.Time
		want bool
	}{
		{tagged, now.Add(59 * time.Minute), true},
		{tagged, now.Add(time.Hour), false},
		{tagged, now.AddDate(1, 0, 0), false},
		{pinned(d), now.Add(59 * time.Minute), true},
	} {
		c := p.client(memory)
		c.Now = func() time.Time { return test.at }
		dir := filepath.Join(t.TempDir(), "model")
		_, err := c.Pull(t.Context(), test.ref, dir, p.policy(), nil)
		if test.want {
			if err != nil {
				t.Errorf("%s at %v: %v", test.ref, test.at, err)
			}
			continue
		}
		refused(t, err, errPolicy)
		absent(t, dir)
	}
}

// stalling is a source whose every second stream stops and is given up.
type stalling struct {
	registry.BlobSource
	n atomic.Int64
}

func (s *stalling) String() string { return "stalling.example.com" }

func (s *stalling) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	body, err := s.BlobSource.Fetch(ctx, d, off, n)
	if err != nil || s.n.Add(1)%2 == 0 {
		return body, err
	}
	stalled := &registry.Error{Op: "fetch", Err: registry.ErrStalled}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(body, n/2), iotest.ErrReader(stalled)), body}, nil
}

// TestStalledStreamIsLeftForAnother: a stream without progress costs its rest,
// which another one fetches.
func TestStalledStreamIsLeftForAnother(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, src, options())
			inBubble(t, func(t *testing.T) {
				slow := &stalling{BlobSource: &mirror{serve: func(d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
					return openShelf(t, memory, repository).Fetch(context.Background(), d, off, n)
				}}}
				dir := filepath.Join(t.TempDir(), "model")
				c := p.client(&mirrored{memory, []registry.BlobSource{slow}})
				if _, err := c.Pull(t.Context(), tagged, dir, p.policy(), nil); err != nil {
					t.Fatal(err)
				}
				sameFiles(t, dir, src)
				if slow.n.Load() == 0 {
					t.Error("the source that stalls was not asked")
				}
			})
		})
	}
}

// TestConcurrentPullsShareOneCache starts sixteen clients, as processes of one
// host are, on an empty cache and without locks.
func TestConcurrentPullsShareOneCache(t *testing.T) {
	p := newParty(t)
	src := large()
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			server := ociserver.New()
			ref := serve(t, server) + ":v3"
			push(t, p.client(remote()), ref, src, options())
			cache, base := t.TempDir(), t.TempDir()
			var pulls sync.WaitGroup
			for i := range 16 {
				pulls.Go(func() {
					c := p.client(remote())
					c.CacheDir = cache
					if _, err := c.Pull(t.Context(), ref, filepath.Join(base, fmt.Sprint(i)), p.policy(), nil); err != nil {
						t.Error(err)
					}
				})
			}
			pulls.Wait()
			for i := range 16 {
				sameFiles(t, filepath.Join(base, fmt.Sprint(i)), src)
			}
			for _, file := range cachedFiles(t, cache) {
				b := must(os.ReadFile(file))
				if want := filepath.Base(filepath.Dir(file)) + filepath.Base(file); digestOf(b).Encoded() != want {
					t.Errorf("%s holds something else", file)
				}
			}
			c := p.client(remote())
			c.CacheDir = cache
			before := layerTraffic(t, c, ref, server)
			if _, err := c.Pull(t.Context(), ref, filepath.Join(base, "last"), p.policy(), nil); err != nil {
				t.Error(err)
			}
			if sent := layerTraffic(t, c, ref, server) - before; sent != 0 {
				t.Errorf("%d bytes were fetched that the cache has", sent)
			}
		})
	}
}

// TestJournalOfAnotherVersionOrPushIsNotBelieved: the push starts over.
func TestJournalOfAnotherVersionOrPushIsNotBelieved(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		for name, spoil := range map[string]func([]byte) []byte{
			"NewerVersion": func(b []byte) []byte { return bytes.Replace(b, []byte(`"version":1`), []byte(`"version":2`), 1) },
			"OtherPush": func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"plan":"sha256:`), []byte(`"plan":"sha256:0000`), 1)
			},
			"Torn":    func(b []byte) []byte { return b[:len(b)/2] },
			"Zeros":   func(b []byte) []byte { return make([]byte, len(b)) },
			"Garbage": func(b []byte) []byte { return noise(1, 100_000) },
		} {
			c, p, ref, journal, src, _, _ := interruptedPush(t, encrypted)
			if err := change(journal, spoil); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Push(t.Context(), ref, src, pushOptions(p, journal, encrypted)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := c.Pull(t.Context(), ref, filepath.Join(t.TempDir(), "out"), p.policy(), nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestPushEndsWithItsContext cancels at every operation on the registry. The
// call returns at once, and the tag is not there unless all of it is.
func TestPushEndsWithItsContext(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			for stage := int64(1); ; stage++ {
				memory := registry.NewMemory()
				ctx, cancel := context.WithCancel(t.Context())
				blocking, cancelled := cancelAt(memory, stage, cancel)
				_, err := p.client(blocking).Push(ctx, tagged, large(), options())
				cancel()
				if cancelled.Load() == nil {
					if err != nil {
						t.Error(err)
					}
					break
				}
				if took := time.Since(*cancelled.Load()); took > 20*time.Second {
					t.Errorf("stage %d: returned %v after it was cancelled", stage, took)
				}
				refused(t, err, context.Canceled)
				if _, err := openShelf(t, memory, repository).Resolve(t.Context(), "v3"); !errors.Is(err, registry.ErrNotFound) {
					t.Errorf("stage %d: the tag of a push that was cancelled: %v", stage, err)
				}
			}
		})
	}
}

// TestDestinationThatFailsEndsThePull: an error of the disk in the middle of it
// ends all streams, is named, and leaves nothing under the final name.
func TestDestinationThatFailsEndsThePull(t *testing.T) {
	eachRig(t, 40, func(t *testing.T, r *rig) {
		base := t.TempDir()
		var once sync.Once
		r.fault = func(*http.Request) *ociserver.Fault {
			once.Do(func() {
				// A cleaner takes the directory away in which files are staged.
				for _, e := range must(os.ReadDir(base)) {
					if strings.HasPrefix(e.Name(), ".model.modelsec-") {
						if err := os.RemoveAll(filepath.Join(base, e.Name())); err != nil {
							t.Error(err)
						}
					}
				}
			})
			return nil
		}
		c := r.p.client(remote())
		_, err := c.Pull(t.Context(), r.ref, filepath.Join(base, "model"), r.p.policy(), nil)
		if err == nil {
			t.Error("the pull succeeded without its directory")
		}
		absent(t, filepath.Join(base, "model"))
		if held, lent := c.Held(); held != 0 || lent != 0 {
			t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
		}
		// The next one is not hindered.
		if _, err := c.Pull(t.Context(), r.ref, filepath.Join(base, "model"), r.p.policy(), nil); err != nil {
			t.Error(err)
		}
		sameFiles(t, filepath.Join(base, "model"), r.src)
	})
}

// TestThousandReadersStayWithinTheMemoryLimit reads a model from a thousand
// goroutines at once, with memory for a few segments.
func TestThousandReadersStayWithinTheMemoryLimit(t *testing.T) {
	p := newParty(t)
	src := large()
	want := src["model.safetensors"].Data
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, src, options())
			const limit = 2 << 20
			c := p.client(memory)
			c.MemoryLimit = limit
			m, err := c.Open(t.Context(), tagged, p.policy())
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			var most atomic.Int64
			var readers sync.WaitGroup
			for i := range 1000 {
				readers.Go(func() {
					r, err := m.ReaderAt(t.Context(), "model.safetensors")
					if err != nil {
						t.Error(err)
						return
					}
					at := int64(i*7919) % int64(len(want)-1000)
					got := make([]byte, 1000)
					if _, err := r.ReadAt(got, at); err != nil || !bytes.Equal(got, want[at:at+1000]) {
						t.Errorf("read at %d: %v", at, err)
					}
					held, lent := c.Held()
					for now, old := held+lent, most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
					}
				})
			}
			readers.Wait()
			if most.Load() > limit {
				t.Errorf("%d bytes were in use, the limit is %d", most.Load(), limit)
			}
		})
	}
}
