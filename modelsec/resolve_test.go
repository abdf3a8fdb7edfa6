// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// resolver is a store that hands over the bytes of manifests, changed.
type resolver struct {
	registry.Opener
	change func(d *ocispec.Descriptor, b []byte) []byte
}

func (r *resolver) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := r.Opener.Open(ctx, name)
	return resolverStore{s, r}, err
}

type resolverStore struct {
	registry.Store
	r *resolver
}

func (s resolverStore) ResolveManifest(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, []byte, error) {
	d, err := s.Resolve(ctx, tagOrDigest)
	if err != nil {
		return d, nil, err
	}
	body, err := s.Fetch(ctx, d, 0, d.Size)
	if err != nil {
		return d, nil, err
	}
	defer body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(body)
	return d, s.r.change(&d, b.Bytes()), err
}

// TestOpenComparesTheBytesOfAResolvedManifest: what a store returns with a
// descriptor is compared with it, and a digest in the reference with both.
func TestOpenComparesTheBytesOfAResolvedManifest(t *testing.T) {
	p, memory := newParty(t), registry.NewMemory()
	first := push(t, p.client(memory), tagged, source(map[string]int{"a.safetensors": 100}), p.options(nil))
	other := push(t, p.client(memory), repository+":v4", source(map[string]int{"b.safetensors": 100}), p.options(nil))
	pinned := repository + "@" + string(first.Digest)
	for name, test := range map[string]struct {
		ref    string
		change func(d *ocispec.Descriptor, b []byte) []byte
		want   error
	}{
		"Unchanged": {tagged, func(_ *ocispec.Descriptor, b []byte) []byte { return b }, nil},
		"Bytes":     {tagged, func(_ *ocispec.Descriptor, b []byte) []byte { return append(b, '\n') }, modelsec.ErrDigest},
		"NoBytes":   {tagged, func(*ocispec.Descriptor, []byte) []byte { return []byte{} }, modelsec.ErrDigest},
		"Another": {pinned, func(d *ocispec.Descriptor, b []byte) []byte {
			*d = other
			return nil
		}, modelsec.ErrDigest},
		"AnotherByItsBytes": {pinned, func(d *ocispec.Descriptor, b []byte) []byte {
			b = append(b, '\n')
			d.Digest, d.Size = digest.FromBytes(b), int64(len(b))
			return b
		}, modelsec.ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := p.client(&resolver{memory, test.change}).Open(t.Context(), test.ref, p.policy())
			if test.want != nil {
				refused(t, err, test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m.Close()
		})
	}
}

// TestNothingIsAskedForTwice: a pull reads every manifest and every small blob
// once, and a push asks about no blob that it has just made.
func TestNothingIsAskedForTwice(t *testing.T) {
	p := newParty(t)
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			r := newRig(t, p, source(map[string]int{"model.safetensors": 3 * segment}), options())
			var mu sync.Mutex
			asked := make(map[string]int)
			r.server.Fault = func(q *http.Request) *ociserver.Fault {
				mu.Lock()
				defer mu.Unlock()
				asked[q.Method+" "+q.URL.Path]++
				return nil
			}
			r.pull(t)
			for _, what := range slices.Sorted(maps.Keys(asked)) {
				if n := asked[what]; n > 1 {
					t.Errorf("a pull: %d times %s", n, what)
				}
			}
			clear(asked)
			push(t, p.client(remote()), r.ref, r.src, options())
			heads := 0
			for what, n := range asked {
				if strings.HasPrefix(what, "HEAD ") {
					heads += n
				}
			}
			// The empty config, and of a plain model index and config.
			if most := map[string]int{"plain": 3, "encrypted": 1}[profile]; heads > most {
				t.Errorf("a push asks about %d blobs, want at most %d", heads, most)
			}
		})
	}
}
