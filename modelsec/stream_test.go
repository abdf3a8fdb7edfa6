// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/iotest"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestWholeBlobGoesOnWhereRangesAreIgnored downloads an artifact without an
// index from a host that breaks off twice and has no ranges: what was had is
// skipped, and ranges are tried once.
func TestWholeBlobGoesOnWhereRangesAreIgnored(t *testing.T) {
	p := newParty(t)
	layers := []forged{{path: "a.safetensors", role: "weight", content: noise(1, 20*segment)}}
	server := ociserver.New()
	var requests atomic.Int64
	server.Fault = func(r *http.Request) *ociserver.Fault {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, string(digestOf(layers[0].content))) {
			return nil
		}
		f := &ociserver.Fault{IgnoreRange: true}
		// The second of these is the range.
		if n := requests.Add(1); n <= 3 {
			f.Cut, f.CutAfter = true, n*4*segment
		}
		return f
	}
	h := serve(t, server)
	d := foreignAt(t, p, remote(), h, layers, nil)
	c := p.client(remote())
	c.MemoryLimit = 8 << 20
	dest := filepath.Join(t.TempDir(), "model")
	if _, err := c.Pull(t.Context(), h+"@"+string(d.Digest), dest, p.unindexed(), nil); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, dest, fstest.MapFS{"a.safetensors": {Data: layers[0].content}})
	if n := requests.Load(); n != 4 {
		t.Errorf("%d requests, want the first, one for a range, one that breaks too and one to the end", n)
	}
}

// TestUnindexedPathsAreCheckedBeforeTheDownload: an artifact that cannot be
// written is not fetched first.
func TestUnindexedPathsAreCheckedBeforeTheDownload(t *testing.T) {
	p := newParty(t)
	for name, path := range map[string]string{"Parent": "../x", "Clash": "A.safetensors", "Twice": "a.safetensors", "Below": "a.safetensors/b"} {
		memory := registry.NewMemory()
		layers := []forged{{path: "a.safetensors", role: "weight", content: noise(1, segment)}, {path: path, role: "weight", content: noise(2, segment)}}
		d := foreign(t, p, memory, layers, nil)
		counting := &evil{Opener: memory}
		c := p.client(counting)
		c.MemoryLimit = 8 << 20
		pullFails(t, c, pinned(d), p.unindexed(), modelsec.ErrFormat)
		if n := counting.fetched.Load(); n != 0 {
			t.Errorf("%s: %d bytes were fetched", name, n)
		}
	}
}

// TestBlobThatTricklesOverNewConnectionsFails: a host that breaks off after a few
// bytes each time has no longer patience than one that sends them slowly.
func TestBlobThatTricklesOverNewConnectionsFails(t *testing.T) {
	p := newParty(t)
	layers := []forged{{path: "a.safetensors", role: "weight", content: noise(1, 20*segment)}}
	memory := registry.NewMemory()
	d := foreignAt(t, p, memory, repository, layers, nil)
	inBubble(t, func(t *testing.T) {
		trickle := &trickling{Opener: memory, digest: digestOf(layers[0].content)}
		c := p.client(trickle)
		_, err := c.Pull(t.Context(), repository+"@"+string(d.Digest), filepath.Join(t.TempDir(), "model"), p.unindexed(), nil)
		if !errors.Is(err, io.ErrUnexpectedEOF) || trickle.requests.Load() > 10 {
			t.Errorf("error %v after %d requests", err, trickle.requests.Load())
		}
	})
}

// trickling serves ten bytes of a blob to each request.
type trickling struct {
	registry.Opener
	digest   godigest.Digest
	requests atomic.Int64
}

func (o *trickling) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := o.Opener.Open(ctx, name)
	return &tricklingStore{s, o}, err
}

type tricklingStore struct {
	registry.Store
	o *trickling
}

func (s *tricklingStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	body, err := s.Store.Fetch(ctx, d, off, n)
	if err != nil || d.Digest != s.o.digest {
		return body, err
	}
	s.o.requests.Add(1)
	cut := io.MultiReader(io.LimitReader(body, 10), iotest.ErrReader(io.ErrUnexpectedEOF))
	return struct {
		io.Reader
		io.Closer
	}{cut, body}, nil
}
