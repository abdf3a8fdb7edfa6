// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// cosignTag lists bundles as cosign 2 does: bare envelopes under a tag.
func (s shelf) cosignTag(subject ocispec.Descriptor, mediaType string, bundles ...*provenance.Bundle) {
	s.t.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: s.blob("application/vnd.oci.image.config.v1+json", []byte("{}"))}
	for _, b := range bundles {
		var doc struct {
			DSSEEnvelope json.RawMessage `json:"dsseEnvelope"`
		}
		if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
			s.t.Fatal(err)
		}
		d := s.blob(mediaType, doc.DSSEEnvelope)
		d.Annotations = map[string]string{"dev.cosignproject.cosign/signature": ""}
		m.Layers = append(m.Layers, d)
	}
	if err := s.Tag(s.t.Context(), s.put(m), "sha256-"+subject.Digest.Encoded()+".att"); err != nil {
		s.t.Fatal(err)
	}
}

// slsaPolicy wants what only the tag holds.
func (p *party) slsaPolicy() provenance.Policy {
	policy := p.policy()
	policy.Rules[0].Require[0].PredicateType = provenance.PredicateSLSA
	return policy
}

// TestCosignTagIsReadWhereAsked: it is evidence like any other, and none unless
// the caller wants it.
func TestCosignTagIsReadWhereAsked(t *testing.T) {
	p := newParty(t)
	memory, d := granted(t, p, true)
	s := openShelf(t, memory, repository)
	s.cosignTag(d, provenance.EnvelopeMediaType, signed(t, p, d.Digest, slsa(t)))
	c := p.client(memory)
	if _, err := c.Verify(t.Context(), pinned(d), p.slsaPolicy()); !errors.As(err, new(*provenance.PolicyError)) {
		t.Errorf("without CosignTags: got %v", err)
	}
	c.CosignTags = true
	for _, ref := range []string{pinned(d), tagged} {
		if _, err := c.Verify(t.Context(), ref, p.slsaPolicy()); err != nil {
			t.Error(err)
		}
	}
	info, err := c.Inspect(t.Context(), pinned(d))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, a := range info.Attestations {
		if a.PredicateType == provenance.PredicateSLSA {
			found++
		}
	}
	if found != 1 {
		t.Errorf("Inspect lists %+v, want one provenance", info.Attestations)
	}
}

// TestCosignTagProvesNothingByItself: whoever may tag may put there what he likes.
func TestCosignTagProvesNothingByItself(t *testing.T) {
	p, stranger := newParty(t), newParty(t)
	memory, d := granted(t, p, true)
	s := openShelf(t, memory, repository)
	c := p.client(memory)
	c.CosignTags = true
	genuine := signed(t, p, d.Digest, slsa(t))
	junk := make([]*provenance.Bundle, 0, 600)
	for i := range cap(junk) {
		junk = append(junk, signed(t, stranger, d.Digest, provenance.Statement{PredicateType: fmt.Sprintf("https://example.com/%d", i)}))
	}
	for name, x := range map[string]struct {
		mediaType string
		bundles   []*provenance.Bundle
		allowed   bool
	}{
		"by a stranger":          {provenance.EnvelopeMediaType, []*provenance.Bundle{signed(t, stranger, d.Digest, slsa(t))}, false},
		"about another artifact": {provenance.EnvelopeMediaType, []*provenance.Bundle{signed(t, p, digestOf(nil), slsa(t))}, false},
		"as another type":        {"application/vnd.dev.cosign.simplesigning.v1+json", []*provenance.Bundle{genuine}, false},
		"in front of a flood":    {provenance.EnvelopeMediaType, append([]*provenance.Bundle{genuine}, junk...), true},
		"behind a flood":         {provenance.EnvelopeMediaType, append(junk[:len(junk):len(junk)], genuine), true},
	} {
		s.cosignTag(d, x.mediaType, x.bundles...)
		_, err := c.Verify(t.Context(), pinned(d), p.slsaPolicy())
		if refusal := new(provenance.PolicyError); x.allowed && err != nil || !x.allowed && !errors.As(err, &refusal) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A tag that names something else takes nothing away.
	if err := s.Tag(t.Context(), d, "sha256-"+d.Digest.Encoded()+".att"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(t.Context(), pinned(d), p.policy()); err != nil {
		t.Errorf("with the model itself under the tag: %v", err)
	}
}

// TestCosignTagThatFailsForNowIsNoRefusal: what is not served today may be what
// the policy wants.
func TestCosignTagThatFailsForNowIsNoRefusal(t *testing.T) {
	p := newParty(t)
	memory, d := granted(t, p, true)
	c := p.client(untagged{memory})
	c.CosignTags = true
	_, err := c.Verify(t.Context(), pinned(d), p.policy())
	if refusal := new(provenance.PolicyError); err == nil || errors.As(err, &refusal) || !errors.As(err, new(unavailable)) {
		t.Errorf("got %v, want the failure of the registry", err)
	}
	c = p.client(untagged{memory})
	if _, err := c.Verify(t.Context(), pinned(d), p.policy()); err != nil {
		t.Errorf("a tag that nobody asked for: %v", err)
	}
}

// untagged fails to resolve tags of cosign's.
type untagged struct{ registry.Opener }

func (o untagged) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := o.Opener.Open(ctx, name)
	return untaggedStore{s}, err
}

type untaggedStore struct{ registry.Store }

func (s untaggedStore) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	if strings.HasSuffix(ref, ".att") {
		return ocispec.Descriptor{}, unavailable{}
	}
	return s.Store.Resolve(ctx, ref)
}

type unavailable struct{}

func (unavailable) Error() string   { return "503" }
func (unavailable) Temporary() bool { return true }
