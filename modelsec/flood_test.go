// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"iter"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// flooded is a registry on which somebody has listed more than anybody reads.
type flooded struct {
	registry.Opener
	// list says what is listed of the real referrers, and whether the end is
	// never reached.
	list func(artifactType string, found []ocispec.Descriptor) (list []ocispec.Descriptor, endless bool)
}

func (f *flooded) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := f.Opener.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &floodedStore{s.(registry.WriteStore), f}, nil
}

type floodedStore struct {
	registry.WriteStore
	f *flooded
}

func (s *floodedStore) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		var found []ocispec.Descriptor
		for d, err := range s.WriteStore.Referrers(ctx, subject, artifactType) {
			if err != nil {
				yield(d, err)
				return
			}
			found = append(found, d)
		}
		list, endless := s.f.list(artifactType, found)
		for _, d := range list {
			if !yield(d, nil) {
				return
			}
		}
		if endless {
			yield(ocispec.Descriptor{}, &registry.Error{Op: "list referrers", Err: registry.ErrLimit})
		}
	}
}

// junk is n descriptors of nothing.
func junk(n int, artifactType string) []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, n)
	for i := range out {
		out[i] = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(artifactType, i)), Size: 400, ArtifactType: artifactType}
	}
	return out
}

func ofType(artifactType string, list []ocispec.Descriptor) []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(list), func(d ocispec.Descriptor) bool { return d.ArtifactType != artifactType })
}

// TestFloodOfGrantsIsBounded is K14 with the bill: 5,000 junk grants that bear
// the key id of the victim cost its key service four requests at most, and the
// reader a bounded number of requests and bytes.
func TestFloodOfGrantsIsBounded(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	junkGrants(t, openShelf(t, memory, repository), d, 5000, keyID(t, p, memory, d))
	var requests atomic.Int64
	counting := &evil{Opener: memory, before: func(context.Context, string, string) error {
		requests.Add(1)
		return nil
	}}
	remote := &service{Identity: p.identity}
	for name, id := range map[string]encrypt.Identity{"service": remote, "local key": p.identity} {
		requests.Store(0)
		c := p.client(counting)
		c.Identities = []encrypt.Identity{id}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, err := c.Open(t.Context(), tagged, p.policy())
		if err != nil {
			t.Errorf("the flood keeps a %s from the grant: %v", name, err)
			continue
		}
		runtime.ReadMemStats(&after)
		allocated := after.TotalAlloc - before.TotalAlloc
		runtime.GC()
		runtime.ReadMemStats(&after)
		kept := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		m.Close()
		t.Logf("%s: %d requests, %d bytes allocated, %d kept", name, requests.Load(), allocated, kept)
		// A manifest and a document each, and some to look for attestations.
		if n := requests.Load(); n > 2*5000+1200 {
			t.Errorf("%s: %d requests were made", name, n)
		}
		if allocated > 512<<20 || kept > 16<<20 {
			t.Errorf("%s: %d bytes were allocated and %d kept", name, allocated, kept)
		}
	}
	if n := remote.calls.Load(); n > 4 {
		t.Errorf("the service was called %d times, want at most 4", n)
	}
}

// TestGrantBehindAFloodIsFoundByItsDigest: where more is listed than anybody
// reads, a grant says so, and a reader who was told its digest opens.
func TestGrantBehindAFloodIsFoundByItsDigest(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	before := openShelf(t, memory, repository).referrers(d, "")
	f := &flooded{memory, func(_ string, _ []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		return slices.Concat(before, junk(2000, grantType)), true
	}}
	grant, err := p.client(f).Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), &modelsec.GrantOptions{Signer: p.signer})
	refused(t, err, modelsec.ErrLimit)
	contains(t, err, string(grant.Digest), "readers must name its digest")
	if opens(t, friend, p, f, d) {
		t.Fatal("the grant is listed")
	}
	c := friend.client(f)
	c.GrantDigests = []digest.Digest{digest.FromString("of another artifact"), grant.Digest}
	m, err := c.Open(t.Context(), tagged, p.policy())
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if !opens(t, p, p, f, d) {
		t.Error("what was there before the flood is hidden")
	}
}

// TestFloodOfAnotherTypeHidesNothing where the registry filters by type.
func TestFloodOfAnotherTypeHidesNothing(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	f := &flooded{memory, func(artifactType string, found []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		if artifactType == "" {
			return junk(2000, "application/vnd.junk"), true
		}
		return found, false
	}}
	if _, err := p.client(f).Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), &modelsec.GrantOptions{Signer: p.signer}); err != nil {
		t.Fatal(err)
	}
	if !opens(t, friend, p, f, d) || !opens(t, p, p, f, d) {
		t.Error("the flood hides grants")
	}
}

// TestFloodOfBundlesHidesNeitherEnd of the listing.
func TestFloodOfBundlesHidesNeitherEnd(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(nil))
	s := openShelf(t, memory, repository)
	first := s.referrers(d, provenance.BundleMediaType)
	s.bundle(d, signed(t, p, d.Digest, slsa(t)))
	f := &flooded{memory, func(_ string, found []ocispec.Descriptor) ([]ocispec.Descriptor, bool) {
		last := slices.DeleteFunc(ofType(provenance.BundleMediaType, found), func(d ocispec.Descriptor) bool {
			return slices.ContainsFunc(first, func(f ocispec.Descriptor) bool { return f.Digest == d.Digest })
		})
		return slices.Concat(first, junk(5000, provenance.BundleMediaType), last), false
	}}
	policy := provenance.RequireKey(p.key.Public(), provenance.PredicateRelease, provenance.PredicateSLSA)
	m, err := p.client(f).Open(t.Context(), tagged, policy)
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
}

// TestFloodOfLargeBundlesIsNotHeld: what nobody whom the policy names signed
// is let go before the next of it is read.
func TestFloodOfLargeBundlesIsNotHeld(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(nil))
	s := openShelf(t, memory, repository)
	junk := fmt.Appendf(nil, `{"mediaType":%q,"verificationMaterial":{"publicKey":{}},"dsseEnvelope":{"payload":%q,"payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AAAA"}]}}`,
		provenance.BundleMediaType, base64.StdEncoding.EncodeToString(make([]byte, 3<<20-1024)))
	if _, err := provenance.ParseBundle(junk); err != nil {
		t.Fatal(err)
	}
	for i := range 24 {
		// Spaces at the end make them different.
		s.attach(d, provenance.BundleMediaType, s.blob(provenance.BundleMediaType, append(bytes.Clone(junk), bytes.Repeat([]byte{' '}, i)...)))
	}
	var before, during runtime.MemStats
	var most atomic.Uint64
	var reads atomic.Int64
	var measuring sync.Mutex
	watched := &evil{Opener: memory, before: func(_ context.Context, op, _ string) error {
		if op == "fetch" && reads.Add(1)%32 == 0 {
			measuring.Lock()
			defer measuring.Unlock()
			runtime.GC()
			runtime.ReadMemStats(&during)
			most.Store(max(most.Load(), during.HeapAlloc))
		}
		return nil
	}}
	runtime.GC()
	runtime.ReadMemStats(&before)
	if _, err := p.client(watched).Verify(t.Context(), tagged, p.policy()); err != nil {
		t.Fatal(err)
	}
	held := int64(most.Load()) - int64(before.HeapAlloc)
	t.Logf("%d MiB at most", held>>20)
	if held > 150<<20 {
		t.Errorf("%d MiB were held of %d MiB that somebody attached", held>>20, 24*len(junk)>>20)
	}
}
