// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/registry"
)

// testPut is the contract of registry.Putter, for stores that are one.
func testPut(t *testing.T, s registry.WriteStore) {
	p, ok := s.(registry.Putter)
	if !ok {
		t.Skip("no registry.Putter")
	}
	for _, size := range []int{0, 1, 70_000, 3<<20 + 1} {
		b := content(size)
		d := describe(b)
		for range 2 {
			if err := p.Put(t.Context(), d, bytes.NewReader(b)); err != nil {
				t.Fatalf("Put of %d bytes: %v", size, err)
			}
		}
		// Bytes after the blob are not part of it.
		if err := p.Put(t.Context(), d, bytes.NewReader(append(content(size), "more"...))); err != nil {
			t.Errorf("Put of %d bytes out of more: %v", size, err)
		}
		equal(t, "blob", fetch(t, s, d, 0, d.Size), b)
	}
	wrong := describe(content(4999))
	wrong.Size = 5000
	if err := p.Put(t.Context(), wrong, bytes.NewReader(content(5000))); err == nil {
		t.Error("Put took the digest of other bytes")
	}
	if err := p.Put(t.Context(), describe(content(5000)), bytes.NewReader(content(4000))); err == nil {
		t.Error("Put took content that ends early")
	}
	for _, size := range []int{4999, 5000} {
		if there, err := s.Has(t.Context(), describe(content(size))); there || err != nil {
			t.Errorf("after a refused Put: Has = %v, %v", there, err)
		}
	}
	negative := describe(nil)
	negative.Size = -1
	wantError(t, "Put of a negative size", p.Put(t.Context(), negative, bytes.NewReader(nil)), registry.ErrLimit)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantError(t, "Put with an ended context", p.Put(ctx, describe(content(10)), bytes.NewReader(content(10))), context.Canceled)
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			b := content(200_000 + i/2)
			if err := p.Put(t.Context(), describe(b), bytes.NewReader(b)); err != nil {
				t.Errorf("concurrent Put: %v", err)
			}
		})
	}
	group.Wait()
}

// testSources is the contract of registry.Sourced, for stores that are one: a
// source serves what the store serves, or fails; what it serves may be wrong.
func testSources(t *testing.T, s registry.WriteStore) {
	sourced, ok := s.(registry.Sourced)
	if !ok {
		t.Skip("no registry.Sourced")
	}
	d := push(t, s, content(1000))
	for _, source := range sourced.Sources() {
		if source.String() == "" {
			t.Error("source without a name")
		}
		if _, ok := source.(registry.WriteStore); ok {
			t.Errorf("%s can be written", source)
		}
		for _, r := range [][2]int64{{-1, 1}, {0, 1001}, {1000, 1}, {0, 0}} {
			if body, err := source.Fetch(t.Context(), d, r[0], r[1]); err == nil {
				body.Close()
				t.Errorf("%s: Fetch(%d, %d) of 1000 bytes succeeded", source, r[0], r[1])
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := source.Fetch(ctx, d, 0, d.Size)
		wantError(t, "Fetch with an ended context", err, context.Canceled)
	}
}

// testResolveManifest is the contract of registry.ManifestResolver.
func testResolveManifest(t *testing.T, s registry.WriteStore) {
	r, ok := s.(registry.ManifestResolver)
	if !ok {
		t.Skip("no registry.ManifestResolver")
	}
	b := manifest(t, s, "application/vnd.example", "resolve", nil)
	want := pushManifest(t, s, b)
	if err := s.Tag(t.Context(), want, "v1"); err != nil {
		t.Fatal(err)
	}
	for _, ref := range []string{"v1", want.Digest.String()} {
		d, got, err := r.ResolveManifest(t.Context(), ref)
		if err != nil || d.Digest != want.Digest || d.Size != int64(len(b)) {
			t.Errorf("ResolveManifest(%s) = %+v, %v", ref, d, err)
		}
		equal(t, "manifest", got, b)
	}
	for _, ref := range []string{"v2", digest.FromBytes(nil).String()} {
		_, _, err := r.ResolveManifest(t.Context(), ref)
		wantError(t, "ResolveManifest("+ref+")", err, registry.ErrNotFound)
	}
}

// testPushReferrers is the contract of registry.ReferrerPusher.
func testPushReferrers(t *testing.T, s registry.WriteStore) {
	p, ok := s.(registry.ReferrerPusher)
	if !ok {
		t.Skip("no registry.ReferrerPusher")
	}
	subject := pushManifest(t, s, manifest(t, s, "", "subject", nil))
	other := pushManifest(t, s, manifest(t, s, "", "other subject", nil))
	var manifests [][]byte
	want := make(map[digest.Digest]int)
	for i := range 5 {
		manifests = append(manifests, manifest(t, s, "application/vnd.example", fmt.Sprint("together ", i), &subject))
		want[digest.FromBytes(manifests[i])] = 1
	}
	// Again, with one that is listed already among them.
	for _, n := range []int{2, 5, 5} {
		got, err := p.PushReferrers(t.Context(), manifests[:n]...)
		if err != nil || len(got) != n {
			t.Fatalf("PushReferrers of %d = %d descriptors, %v", n, len(got), err)
		}
		for i, d := range got {
			if d.Digest != digest.FromBytes(manifests[i]) || d.Size != int64(len(manifests[i])) {
				t.Errorf("descriptor %d is %+v", i, d)
			}
		}
	}
	if got := listed(t, s, subject, ""); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	stray := manifest(t, s, "application/vnd.example", "stray", &other)
	for name, list := range map[string][][]byte{
		"two subjects": {manifests[0], stray},
		"no subject":   {stray, manifest(t, s, "", "about nothing", nil)},
	} {
		_, err := p.PushReferrers(t.Context(), list...)
		wantError(t, name, err, registry.ErrInvalid)
	}
	if got := listed(t, s, other, ""); len(got) != 0 {
		t.Errorf("of a refused list %v was listed", got)
	}
	if got, err := p.PushReferrers(t.Context()); len(got) != 0 || err != nil {
		t.Errorf("PushReferrers of nothing = %v, %v", got, err)
	}
}
