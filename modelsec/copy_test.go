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
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const elsewhere = "mirror.example.com/copies/llama"

// TestCopyIsTheArtifact goes from a registry to a layout and on to another
// registry. What arrives is the same manifest with its attestations; grants
// come along only on request.
func TestCopyIsTheArtifact(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		for _, grants := range []modelsec.CopyGrants{"", modelsec.CopyNoGrants, modelsec.CopyAllGrants} {
			t.Run(name+"/"+string(grants), func(t *testing.T) {
				c := p.client(remote())
				from := serve(t, ociserver.New())
				layout := "oci:" + filepath.Join(t.TempDir(), "layout")
				to := serve(t, ociserver.New())
				d := push(t, c, from+":v3", src, options())
				o := &modelsec.CopyOptions{Grants: grants}
				for _, step := range [][2]string{{layout + ":v3", from + ":v3"}, {to + ":v3", layout + ":v3"}} {
					got, err := c.Copy(t.Context(), step[0], step[1], o)
					if err != nil || got.Digest != d.Digest {
						t.Fatalf("%s: %v, %v", step[0], got.Digest, err)
					}
				}
				dest := filepath.Join(t.TempDir(), "model")
				_, err := c.Pull(t.Context(), to+":v3", dest, p.policy(), nil)
				if name == "encrypted" && grants != modelsec.CopyAllGrants {
					refused(t, err, modelsec.ErrNoKey)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				sameFiles(t, dest, src)
			})
		}
	}
}

// TestCopyWithinARegistryNeedsOneConnection where that mounts nothing: each blob
// is read and written at a time.
func TestCopyWithinARegistryNeedsOneConnection(t *testing.T) {
	p := newParty(t)
	server := ociserver.New()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("mount") {
			r.URL.RawQuery = ""
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	host := strings.TrimPrefix(h.URL, "http://")
	for name, options := range p.profiles() {
		for connections := range 3 {
			from, to := fmt.Sprintf("%s/%s/from%d:v3", host, name, connections), fmt.Sprintf("%s/%s/to%d:v3", host, name, connections)
			d := push(t, p.client(remote()), from, large(), options())
			r := remote()
			r.Connections = connections + 1
			got, err := p.client(r).Copy(t.Context(), to, from, nil)
			if err != nil || got.Digest != d.Digest {
				t.Errorf("%s, %d connections: %s, %v", name, r.Connections, got.Digest, err)
			}
		}
	}
}

// TestCopyRefusesWhatIsNotTheArtifact: nothing wrong is stored, and no tag moves.
func TestCopyRefusesWhatIsNotTheArtifact(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, large(), options())
			pieces := openShelf(t, memory, repository).everything(d)
			for digest, piece := range pieces {
				if piece.what == "empty config" || piece.what == "grant" || piece.what == "grant manifest" || piece.what == "grant signature" {
					continue
				}
				inBubble(t, func(t *testing.T) {
					copies := registry.NewMemory()
					_, err := p.client(&split{flipping(memory, digest), copies}).Copy(t.Context(), elsewhere+":v3", tagged, nil)
					if piece.what == "attestation manifest" || piece.what == "attestation" {
						// It is no attestation any more. Without it the copy proves nothing,
						// and with it neither.
						if err == nil {
							_, err = p.client(copies).Verify(t.Context(), elsewhere+":v3", p.policy().For(repository))
						}
						if err == nil {
							t.Errorf("a flipped byte of the %s went unnoticed", piece.what)
						}
						return
					}
					refused(t, err, modelsec.ErrDigest)
					s := openShelf(t, copies, elsewhere)
					if _, err := s.Resolve(t.Context(), "v3"); !errors.Is(err, registry.ErrNotFound) {
						t.Errorf("a flipped byte of the %s: the tag was set: %v", piece.what, err)
					}
					if body, err := s.Fetch(t.Context(), piece.desc, 0, piece.desc.Size); err == nil {
						body.Close()
						t.Errorf("the flipped %s was stored", piece.what)
					}
				})
			}
		})
	}
}

// split opens the source's repository in one place and all others in another.
type split struct {
	source, others registry.Opener
}

func (s *split) Open(ctx context.Context, name string) (registry.Store, error) {
	if name == repository {
		return s.source.Open(ctx, name)
	}
	return s.others.Open(ctx, name)
}

// TestCopyHoldsToItsPolicy: and to a digest in the destination.
func TestCopyHoldsToItsPolicy(t *testing.T) {
	p, other := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(nil))
	c := p.client(memory)
	policy := other.policy()
	_, err := c.Copy(t.Context(), elsewhere+":v3", tagged, &modelsec.CopyOptions{Policy: &policy})
	refused(t, err, errPolicy)
	policy = p.policy()
	if _, err := c.Copy(t.Context(), elsewhere+":v3@"+string(d.Digest), tagged, &modelsec.CopyOptions{Policy: &policy}); err != nil {
		t.Error(err)
	}
	_, err = c.Copy(t.Context(), elsewhere+"@"+string(digestOf(nil)), tagged, nil)
	refused(t, err, modelsec.ErrConfig)
	_, err = c.Copy(t.Context(), elsewhere+":v3", tagged, &modelsec.CopyOptions{Grants: "some"})
	refused(t, err, modelsec.ErrConfig)
}

// TestCopyMovesTheTagLast fails every operation on the destination in turn.
func TestCopyMovesTheTagLast(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	down := errors.New("down")
	for n := 1; ; n++ {
		copies := registry.NewMemory()
		seen := make(chan string, 1000)
		failing := &evil{Opener: copies, before: func(_ context.Context, op, _ string) error {
			seen <- op
			if len(seen) == n {
				return down
			}
			return nil
		}}
		_, err := p.client(&split{memory, failing}).Copy(t.Context(), elsewhere+":v3", tagged, &modelsec.CopyOptions{Grants: modelsec.CopyAllGrants})
		_, resolveErr := openShelf(t, copies, elsewhere).Resolve(t.Context(), "v3")
		if len(seen) < n {
			if err != nil || resolveErr != nil || n < 10 {
				t.Errorf("without a fault, after %d operations: %v, %v", n-1, err, resolveErr)
			}
			return
		}
		if err != nil && resolveErr == nil {
			t.Errorf("operation %d failed and the tag was set", n)
		}
	}
}

// TestCopyWithinARegistryMovesNoBytes.
func TestCopyWithinARegistryMovesNoBytes(t *testing.T) {
	p := newParty(t)
	server := ociserver.New()
	name := serve(t, server)
	c := p.client(remote())
	d := push(t, c, name+":v3", large(), p.options(p.recipients()))
	layers := openShelf(t, remote(), name).manifest(d).Layers
	sent := func() (n int64) {
		for _, l := range layers[:len(layers)-1] {
			n += server.Traffic(l.Digest).Bytes
		}
		return n
	}
	before := sent()
	target := name[:len(name)-len("team/llama")] + "team/copy"
	if _, err := c.Copy(t.Context(), target+":v3", name+":v3", &modelsec.CopyOptions{Grants: modelsec.CopyAllGrants}); err != nil {
		t.Fatal(err)
	}
	if n := sent() - before; n != 0 {
		t.Errorf("%d bytes of layers were read", n)
	}
	dest := filepath.Join(t.TempDir(), "model")
	if _, err := c.Pull(t.Context(), target+"@"+string(d.Digest), dest, p.policy(), nil); err != nil {
		t.Fatal(err)
	}
}

// TestCopyGoesOnWhereTheSourceBreaks.
func TestCopyGoesOnWhereTheSourceBreaks(t *testing.T) {
	p := newParty(t)
	r := newRig(t, p, large(), p.options(p.recipients()))
	for _, l := range r.layers {
		for _, cut := range []int64{0, 1, l.Size / 2, l.Size - 1} {
			hit := once(ociserver.Fault{Cut: true, CutAfter: cut})
			r.fault = func(req *http.Request) *ociserver.Fault {
				if filepath.Base(req.URL.Path) == string(l.Digest) {
					return hit(req)
				}
				return nil
			}
			copies := registry.NewMemory()
			both := &hosts{remote(), copies}
			if _, err := p.client(both).Copy(t.Context(), elsewhere+":v3", r.ref, nil); err != nil {
				t.Fatalf("cut after %d bytes: %v", cut, err)
			}
			got := openShelf(t, copies, elsewhere).read(ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
			if digestOf(got) != l.Digest || bytes.Equal(got, make([]byte, len(got))) {
				t.Error("another layer arrived")
			}
		}
	}
}

// hosts opens the copies in one place and all else in another.
type hosts struct {
	others, copies registry.Opener
}

func (h *hosts) Open(ctx context.Context, name string) (registry.Store, error) {
	if name == elsewhere {
		return h.copies.Open(ctx, name)
	}
	return h.others.Open(ctx, name)
}

// TestBodiesAreClosed, also those of a host that ignores ranges and breaks
// before the place where the last one broke.
func TestBodiesAreClosed(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, large(), p.options(nil))
	inBubble(t, func(t *testing.T) {
		tracked := &bodies{Opener: memory}
		c := p.client(&split{tracked, registry.NewMemory()})
		_, err := c.Copy(t.Context(), elsewhere+":v3", tagged, nil)
		refused(t, err, errTruncated)
		if n := tracked.open.Load(); n != 0 {
			t.Errorf("%d bodies were not closed", n)
		}
	})
}

// bodies counts the open bodies. Those of large blobs break, each earlier than
// the one before, and ranges of them are not served.
type bodies struct {
	registry.Opener
	open, broken atomic.Int64
}

func (b *bodies) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := b.Opener.Open(ctx, name)
	return &bodiesStore{s, b}, err
}

type bodiesStore struct {
	registry.Store
	b *bodies
}

func (s *bodiesStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	if off > 0 {
		return nil, &registry.Error{Op: "fetch", Err: registry.ErrRangeIgnored}
	}
	body, err := s.Store.Fetch(ctx, d, off, n)
	if err != nil {
		return nil, err
	}
	s.b.open.Add(1)
	r := io.Reader(body)
	if d.Size > segment {
		r = io.MultiReader(io.LimitReader(body, n/(1+s.b.broken.Add(1))), broken{})
	}
	return &countedBody{Reader: r, Closer: body, open: &s.b.open}, nil
}

type countedBody struct {
	io.Reader
	io.Closer
	open *atomic.Int64
	once sync.Once
}

func (c *countedBody) Close() error {
	c.once.Do(func() { c.open.Add(-1) })
	return c.Closer.Close()
}

// TestCopyReadsNoReferrerOfManyLayers: one blob may be listed thousands of times
// in one small manifest, and would be held as often.
func TestCopyReadsNoReferrerOfManyLayers(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	s := openShelf(t, memory, repository)
	for _, kind := range []string{provenance.BundleMediaType, grantType} {
		s.attach(d, kind, slices.Repeat([]ocispec.Descriptor{s.blob(kind, []byte("junk of "+kind))}, 1000)...)
	}
	var reads atomic.Int64
	counting := &evil{Opener: memory, before: func(_ context.Context, op, _ string) error {
		if op == "fetch" {
			reads.Add(1)
		}
		return nil
	}}
	policy := p.policy()
	got, err := p.client(counting).Copy(t.Context(), elsewhere+":v3", tagged, &modelsec.CopyOptions{Policy: &policy, Grants: modelsec.CopyAllGrants})
	if err != nil || got.Digest != d.Digest {
		t.Fatal(got, err)
	}
	if n := reads.Load(); n > 100 {
		t.Errorf("%d blobs were read", n)
	}
}
