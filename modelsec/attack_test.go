// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// eachProfile runs a test on an artifact of either profile.
func eachProfile(t *testing.T, run func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor)) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			o := options()
			o.Sequence = 7
			run(t, p, memory, push(t, p.client(memory), tagged, large(), o))
		})
	}
}

func TestTruncatedBlobIsRefused(t *testing.T) {
	eachProfile(t, func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor) {
		for _, l := range openShelf(t, memory, repository).manifest(d).Layers {
			bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
				if d.Digest == l.Digest {
					return b[:len(b)-1]
				}
				return b
			}}
			inBubble(t, func(t *testing.T) {
				err := pullFails(t, p.client(bad), tagged, p.policy(), modelsec.ErrDigest, errTruncated)
				var e *modelsec.Error
				if l.Annotations[pathKey] != indexName && (!errors.As(err, &e) || e.File == "" || e.Segment != (l.Size-1-head(l))/stride(l)) {
					t.Errorf("%v does not name the file and the last segment of %d bytes", err, l.Size)
				}
			})
		}
	})
}

func TestSwappedBlobsAreRefused(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, source(map[string]int{"a.bin": segment + 9, "bb.bin": segment + 9}), options())
			s := openShelf(t, memory, repository)
			m := s.manifest(d)
			first, second := m.Layers[0], m.Layers[1]
			bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
				switch d.Digest {
				case first.Digest:
					return s.read(second)
				case second.Digest:
					return s.read(first)
				}
				return b
			}}
			inBubble(t, func(t *testing.T) {
				pullFails(t, p.client(bad), tagged, p.policy(), modelsec.ErrDigest)
			})
		})
	}
}

func TestRewrittenManifestWithSwappedLayersIsRefused(t *testing.T) {
	eachProfile(t, func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor) {
		s := openShelf(t, memory, repository)
		m := s.manifest(d)
		m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0]
		swapped := s.put(m)
		for _, r := range s.referrers(d, "") {
			old := s.manifest(r)
			s.attach(swapped, old.ArtifactType, old.Layers...)
		}
		if err := s.Tag(t.Context(), swapped, "v3"); err != nil {
			t.Fatal(err)
		}
		pullFails(t, p.client(memory), tagged, p.policy(), errPolicy)

		// Under the old digest, the store has nothing else to serve.
		bad := &evil{Opener: memory, content: func(asked ocispec.Descriptor, b []byte) []byte {
			if asked.Digest == d.Digest {
				return s.read(swapped)
			}
			return b
		}}
		pullFails(t, p.client(bad), pinned(d), p.policy(), modelsec.ErrDigest)
	})
}

func TestRemovedAttestationIsRefused(t *testing.T) {
	eachProfile(t, func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor) {
		bad := &evil{Opener: memory, listed: func(ocispec.Descriptor, []ocispec.Descriptor) []ocispec.Descriptor { return nil }}
		for _, ref := range []string{tagged, pinned(d)} {
			pullFails(t, p.client(bad), ref, p.policy(), errPolicy)
		}
	})
}

// TestAttestationOfAnotherDigestIsRefused attaches the attestations of one
// artifact to another, both as they are and in a listing that lies.
func TestAttestationOfAnotherDigestIsRefused(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	good := push(t, p.client(memory), repository+":good", small(), &modelsec.PushOptions{Signer: p.signer})
	evilModel := push(t, p.client(memory), tagged, large(), nil)
	s := openShelf(t, memory, repository)
	for _, r := range s.referrers(good, provenance.BundleMediaType) {
		s.attach(evilModel, provenance.BundleMediaType, s.manifest(r).Layers...)
	}
	pullFails(t, p.client(memory), tagged, p.policy(), errPolicy)
	pullFails(t, p.client(memory), pinned(evilModel), p.policy(), errPolicy)

	lying := &evil{Opener: memory, listed: func(ocispec.Descriptor, []ocispec.Descriptor) []ocispec.Descriptor { return s.referrers(good, "") }}
	pullFails(t, p.client(lying), pinned(evilModel), p.policy(), errPolicy)
}

// TestStatementOfAnotherTypeIsRefused is K4: a signature says only what its
// predicate type means.
func TestStatementOfAnotherTypeIsRefused(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), nil)
	s := openShelf(t, memory, repository)
	for _, st := range []provenance.Statement{
		{PredicateType: "https://example.com/scan/v1", Predicate: json.RawMessage(`{"malicious":true}`)},
		{PredicateType: "https://spdx.dev/Document", Predicate: json.RawMessage(`{}`)},
		{PredicateType: provenance.PredicateRelease + "/", Predicate: json.RawMessage(`{}`)},
		must(provenance.NewGrant(d.Digest)),
		slsa(t),
	} {
		s.bundle(d, signed(t, p, d.Digest, st))
	}
	pullFails(t, p.client(memory), pinned(d), p.policy(), errPolicy)
}

func TestWrongKeyIsRefused(t *testing.T) {
	eachProfile(t, func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor) {
		other := newParty(t)
		pullFails(t, p.client(memory), tagged, other.policy(), errPolicy)
		// The owner of the registry may sign with a key of his own.
		openShelf(t, memory, repository).bundle(d, release(t, other, d.Digest, releaseOf(t, memory, d)))
		other.key = newParty(t).key
		pullFails(t, p.client(memory), tagged, other.policy(), errPolicy)
	})
}

func TestEmptyPolicyRefusesEverything(t *testing.T) {
	eachProfile(t, func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor) {
		for _, policy := range []provenance.Policy{{}, {Rules: []provenance.Rule{{}}}, {Rules: []provenance.Rule{{Repositories: []string{"*"}}}}} {
			pullFails(t, p.client(memory), pinned(d), policy, errPolicy, modelsec.ErrConfig)
		}
	})
}

func TestUnsignedArtifactIsRefused(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), nil)
	pullFails(t, p.client(memory), tagged, p.policy(), errPolicy)
}

func TestPolicyThatNamesAnIssuerNeedsAVerifier(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(nil))
	pullFails(t, p.client(memory), tagged, provenance.RequireIdentity("https://issuer.example.com", "a@example.com"), modelsec.ErrConfig)
}

// TestOlderArtifactUnderTheTagIsRefused is K3: what the same key once signed
// under another tag does not answer for this one.
func TestOlderArtifactUnderTheTagIsRefused(t *testing.T) {
	eachProfile(t, func(t *testing.T, p *party, memory *registry.Memory, d ocispec.Descriptor) {
		older := push(t, p.client(memory), repository+":v2", small(), p.options(nil))
		untagged := push(t, p.client(memory), repository, source(map[string]int{"x.bin": 5}), p.options(nil))
		elsewhere := "registry.example.com/other/model"
		foreign := push(t, p.client(memory), elsewhere+":v3", source(map[string]int{"y.bin": 5}), p.options(nil))
		s := openShelf(t, memory, repository)
		if _, err := p.client(memory).Copy(t.Context(), repository, elsewhere+":v3", nil); err != nil {
			t.Fatal(err)
		}
		for _, old := range []ocispec.Descriptor{older, untagged, foreign} {
			if err := s.Tag(t.Context(), old, "v3"); err != nil {
				t.Fatal(err)
			}
			pullFails(t, p.client(memory), tagged, p.policy(), errPolicy)
		}
		if err := s.Tag(t.Context(), d, "v3"); err != nil {
			t.Fatal(err)
		}
		if _, err := p.client(memory).Verify(t.Context(), tagged, p.policy()); err != nil {
			t.Error(err)
		}
	})
}

// TestTagThatMovesIsReadOnce moves the tag after it was read: everything that
// follows is about the manifest that the policy judged.
func TestTagThatMovesIsReadOnce(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := small()
	push(t, p.client(memory), tagged, src, p.options(nil))
	other := push(t, p.client(memory), repository+":other", large(), nil)
	var resolved atomic.Int64
	moving := &evil{Opener: memory, tag: func(_ string, d ocispec.Descriptor) ocispec.Descriptor {
		if resolved.Add(1) > 1 {
			return other
		}
		return d
	}}
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := p.client(moving).Pull(t.Context(), tagged, dir, p.policy(), nil); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, dir, src)
	if n := resolved.Load(); n != 1 {
		t.Errorf("the tag was read %d times", n)
	}
}

// TestIndexThatDisagreesWithALayerIsFound is K8: scanners read whole layers, we
// read segments, and both were signed.
func TestIndexThatDisagreesWithALayerIsFound(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	f := &forgery{by: p, profile: index.Plain, layers: twoFiles()}
	scanned := bytes.Clone(f.layers[0].content)
	scanned[5] ^= 1
	f.header = func(h *index.Header) { h.Layers[0].Digest = f.shelf.blob("", scanned).Digest }
	f.manifest = func(m *ocispec.Manifest) { m.Layers[0].Digest = digestOf(scanned) }
	d := f.push(t, memory)
	// The registry serves one content to scanners, and to us what the index says.
	two := &evil{Opener: memory, content: func(asked ocispec.Descriptor, b []byte) []byte {
		if asked.Digest == digestOf(scanned) {
			return f.layers[0].content
		}
		return b
	}}
	c := p.client(two)
	if _, err := c.Pull(t.Context(), tagged, filepath.Join(t.TempDir(), "model"), p.policy(), nil); err != nil {
		t.Fatalf("segments alone were compared: %v", err)
	}
	report, err := c.VerifyDeep(t.Context(), tagged, p.policy())
	refused(t, err, modelsec.ErrDigest)
	if report.LayerDigests != "compared" {
		t.Errorf("the report says layer digests %q", report.LayerDigests)
	}
	strict := p.policy()
	strict.Rules[0].CompareLayerDigests = true
	pullFails(t, c, tagged, strict, modelsec.ErrDigest)
	if _, err := c.Copy(t.Context(), "registry.example.com/mirror/llama", pinned(d), nil); !errors.Is(err, modelsec.ErrDigest) {
		t.Errorf("Copy: got %v, want ErrDigest", err)
	}
}

// TestOpenersUseTheHeaderOfTheIndex is K38.
func TestOpenersUseTheHeaderOfTheIndex(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	layer := openShelf(t, memory, repository).manifest(d).Layers[0]
	bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
		if d.Digest == layer.Digest {
			b = bytes.Clone(b)
			b[encrypt.HeaderSize-1] ^= 1
		}
		return b
	}}
	inBubble(t, func(t *testing.T) {
		contains(t, pullFails(t, p.client(bad), tagged, p.policy(), modelsec.ErrDigest), "FLOE header")
		_, err := p.client(bad).VerifyDeep(context.Background(), tagged, p.policy())
		refused(t, err, modelsec.ErrDigest)
	})

	// A signed header of another layer does not open this one.
	f := &forgery{by: p, profile: index.Encrypted, layers: twoFiles()}
	f.header = func(h *index.Header) { h.Encryption.Headers[0] = h.Encryption.Headers[1] }
	f.push(t, memory)
	pullFails(t, p.client(memory), tagged, p.policy(), encrypt.ErrDecrypt)
}
