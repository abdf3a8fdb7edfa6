// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"io"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestSequentialReadersFetchAhead: a file of many segments, read in small
// pieces, takes far fewer requests than it has segments; read at random it
// takes what is asked for and no more.
func TestSequentialReadersFetchAhead(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := source(map[string]int{"model.safetensors": 64 * segment})
	push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	counting := newCounter(memory)
	m := must(p.client(counting).Open(t.Context(), tagged, p.policy()))
	defer m.Close()
	requests, size := counting.took(func() {
		r := must(m.ReaderAt(t.Context(), "model.safetensors"))
		// A type that has nothing but Read, so that pieces stay small.
		b, err := io.ReadAll(io.MultiReader(r))
		if err != nil || !bytes.Equal(b, src["model.safetensors"].Data) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	})
	if requests > 16 || size > 70*(segment+32) {
		t.Errorf("%d requests for %d bytes to read 64 segments in order", requests, size)
	}
	m2 := must(p.client(counting).Open(t.Context(), tagged, p.policy()))
	defer m2.Close()
	requests, size = counting.took(func() {
		r := must(m2.ReaderAt(t.Context(), "model.safetensors"))
		for _, k := range []int64{40, 3, 21, 60, 9} {
			if _, err := r.ReadAt(make([]byte, 10), k*segment+5); err != nil {
				t.Error(err)
			}
		}
	})
	if requests != 5 || size != 5*(segment+32) {
		t.Errorf("%d requests for %d bytes to read in 5 segments", requests, size)
	}
}

// TestBadSegmentsAheadFailNobody: a segment that nobody asked for yet may be
// bad; who reads before it is served, who reads it is told.
func TestBadSegmentsAheadFailNobody(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			src := source(map[string]int{"model.safetensors": 12 * segment})
			d := push(t, p.client(memory), tagged, src, options())
			l := openShelf(t, memory, repository).manifest(d).Layers[0]
			inBubble(t, func(t *testing.T) {
				bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
					if d.Digest == l.Digest {
						b = bytes.Clone(b)
						b[head(l)+5*stride(l)+9] ^= 1
					}
					return b
				}}
				m := must(p.client(bad).Open(t.Context(), tagged, p.policy()))
				defer m.Close()
				r := must(m.ReaderAt(t.Context(), "model.safetensors"))
				got, err := io.ReadAll(io.LimitReader(r, 5*segment))
				if err != nil || !bytes.Equal(got, src["model.safetensors"].Data[:5*segment]) {
					t.Errorf("%d bytes before the bad segment, %v", len(got), err)
				}
				_, err = r.Read(make([]byte, 10))
				refused(t, err, modelsec.ErrDigest)
				contains(t, err, "segment 5")
			})
		})
	}
}
