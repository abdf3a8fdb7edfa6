// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

// TestConcurrentReadsDoNotWaitForEachOther starts reads of one model while the
// first range of its registry is still to be answered. The reads wait for that
// answer, and must all learn of it.
func TestConcurrentReadsDoNotWaitForEachOther(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, src, options())
			inBubble(t, func(t *testing.T) {
				gate := make(chan struct{})
				var slow atomic.Bool
				held := &evil{Opener: memory, before: func(ctx context.Context, op, _ string) error {
					if op == "fetch" && slow.Load() {
						<-gate
					}
					return nil
				}}
				m, err := p.client(held).Open(t.Context(), tagged, p.policy())
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				slow.Store(true)
				want := src["model.safetensors"].Data
				var reads sync.WaitGroup
				for i := range 8 {
					reads.Go(func() {
						r, err := m.ReaderAt(t.Context(), "model.safetensors")
						if err != nil {
							t.Error(err)
							return
						}
						got := make([]byte, segment)
						at := int64(2*i*segment + 17)
						if _, err := r.ReadAt(got, at); err != nil || !bytes.Equal(got, want[at:at+segment]) {
							t.Errorf("read at %d: %v", at, err)
						}
					})
				}
				settle()
				slow.Store(false)
				close(gate)
				reads.Wait()
			})
		})
	}
}

// mirrored is a registry with further sources that are asked before it.
type mirrored struct {
	registry.Opener
	sources []registry.BlobSource
}

func (m *mirrored) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := m.Opener.Open(ctx, name)
	return &mirroredStore{s, m.sources}, err
}

type mirroredStore struct {
	registry.Store
	sources []registry.BlobSource
}

func (s *mirroredStore) Sources() []registry.BlobSource { return s.sources }

// mirror serves blobs as a function says.
type mirror struct {
	name  string
	calls atomic.Int64
	serve func(d ocispec.Descriptor, off, n int64) (io.ReadCloser, error)
}

func (m *mirror) String() string { return m.name }

func (m *mirror) Fetch(_ context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	m.calls.Add(1)
	return m.serve(d, off, n)
}

// TestSourcesAreNotTrusted pulls from a registry whose mirrors lie, fail or
// have nothing: what is pulled is the model all the same, and the report names
// those who are not asked any more.
func TestSourcesAreNotTrusted(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, serve := range map[string]func(honest io.ReadCloser, n int64) (io.ReadCloser, error){
		"Flips": func(honest io.ReadCloser, n int64) (io.ReadCloser, error) {
			b, err := io.ReadAll(honest)
			b[n/2] ^= 1
			return io.NopCloser(bytes.NewReader(b)), err
		},
		"ServesSomethingElse": func(_ io.ReadCloser, n int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(make([]byte, n))), nil
		},
		"EndsEarly": func(honest io.ReadCloser, n int64) (io.ReadCloser, error) {
			return io.NopCloser(io.MultiReader(io.LimitReader(honest, n/2), broken{})), nil
		},
		"IgnoresRanges": func(io.ReadCloser, int64) (io.ReadCloser, error) {
			return nil, &registry.Error{Op: "fetch", Err: registry.ErrRangeIgnored}
		},
		"HasNothing": func(io.ReadCloser, int64) (io.ReadCloser, error) {
			return nil, &registry.Error{Op: "fetch", Err: registry.ErrNotFound}
		},
		"Refuses": func(io.ReadCloser, int64) (io.ReadCloser, error) {
			return nil, &registry.Error{Op: "fetch", Status: 401, Err: registry.ErrUnauthorized}
		},
		"IsDown": func(io.ReadCloser, int64) (io.ReadCloser, error) {
			return nil, &registry.Error{Op: "fetch", Status: 503, Err: fmt.Errorf("down")}
		},
	} {
		for profile, options := range p.profiles() {
			t.Run(name+"/"+profile, func(t *testing.T) {
				memory := registry.NewMemory()
				push(t, p.client(memory), tagged, src, options())
				inBubble(t, func(t *testing.T) {
					s := openShelf(t, memory, repository)
					m := &mirror{name: "mirror.example.com"}
					m.serve = func(d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
						body, err := s.Fetch(context.Background(), d, off, n)
						if err != nil {
							return nil, err
						}
						return serve(body, n)
					}
					dir := filepath.Join(t.TempDir(), "model")
					report, err := p.client(&mirrored{memory, []registry.BlobSource{m}}).Pull(t.Context(), tagged, dir, p.policy(), nil)
					if err != nil {
						t.Fatal(err)
					}
					sameFiles(t, dir, src)
					if m.calls.Load() == 0 {
						t.Error("the mirror was not asked")
					}
					if !bytes.Contains([]byte(fmt.Sprint(report.Notes)), []byte(m.name)) {
						t.Errorf("the report says %q and does not name the mirror", report.Notes)
					}
				})
			})
		}
	}
}
