// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// TestPushWritesInOrder is FORMAT.md §10: a reader never sees a tag without its
// evidence.
func TestPushWritesInOrder(t *testing.T) {
	p := newParty(t)
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			var ops journal
			s := ociserver.New()
			s.Fault = func(r *http.Request) *ociserver.Fault {
				switch {
				case r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/"):
					ops.add("blob")
				case r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/manifests/v3"):
					ops.add("tag")
				case r.Method == http.MethodPut:
					ops.add("manifest")
				case r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/referrers/"):
					ops.add("listing")
				}
				return nil
			}
			o := options()
			o.Statements = []provenance.Statement{slsa(t)}
			push(t, p.client(remote()), serve(t, s)+":v3", large(), o)
			got := ops.all()
			if i := slices.Index(got, "tag"); i != len(got)-1 || got[max(0, i-1)] != "listing" {
				t.Errorf("the tag is not last, after a look at the listing: %q", got)
			}
			first := slices.Index(got, "manifest")
			if slices.Contains(got[:first], "listing") || len(slices.DeleteFunc(slices.Clone(got[:first]), func(s string) bool { return s != "blob" })) != 5 {
				t.Errorf("not all of layers, index and config come before the manifest: %q", got)
			}
		})
	}
}

// TestFailedPushLeavesTheTag fails every operation on the registry in turn.
func TestFailedPushLeavesTheTag(t *testing.T) {
	p := newParty(t)
	down := errors.New("down")
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			memory := registry.NewMemory()
			before := push(t, p.client(memory), tagged, small(), p.options(nil))
			for n := 1; ; n++ {
				var mu sync.Mutex
				seen := 0
				failing := &evil{Opener: memory, before: func(context.Context, string, string) error {
					mu.Lock()
					defer mu.Unlock()
					if seen++; seen == n {
						return down
					}
					return nil
				}}
				_, err := p.client(failing).Push(t.Context(), tagged, large(), options())
				after := openShelf(t, memory, repository).resolve("v3")
				if seen < n {
					if err != nil || after.Digest == before.Digest {
						t.Errorf("without a fault: %v", err)
					}
					if n < 10 {
						t.Errorf("only %d operations were seen", n)
					}
					return
				}
				if err == nil {
					// What was asked for can be had without this operation, such as whether a
					// blob is there.
					before = after
					continue
				}
				refused(t, err, down)
				if after.Digest != before.Digest {
					t.Fatalf("operation %d failed and the tag was moved", n)
				}
			}
		})
	}
}

// TestListingIsReadBackBeforeTheTag is K47: where a registry forgets a
// referrer, the tag stays.
func TestListingIsReadBackBeforeTheTag(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	before := push(t, p.client(memory), tagged, small(), p.options(nil))
	inBubble(t, func(t *testing.T) {
		looks, late := 0, 3
		slow := &evil{Opener: memory, listed: func(_ ocispec.Descriptor, list []ocispec.Descriptor) []ocispec.Descriptor {
			if looks++; looks <= late {
				return nil
			}
			return list
		}}
		after := push(t, p.client(slow), tagged, large(), p.options(nil))
		if looks <= late {
			t.Error("the tag was moved before the listing was complete")
		}
		late = 1000
		_, err := p.client(slow).Push(t.Context(), tagged, small(), p.options(nil))
		if err == nil {
			t.Error("the push succeeded without its attestations in the listing")
		}
		if got := openShelf(t, memory, repository).resolve("v3"); got.Digest != after.Digest || got.Digest == before.Digest {
			t.Error("the tag was moved")
		}
	})
}

// TestPushSignsItsOwnBytes is K2: what the registry says it stored is not what
// is signed.
func TestPushSignsItsOwnBytes(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	other := push(t, p.client(memory), repository+":other", large(), nil)
	var subjects []string
	o := p.options(nil)
	o.Signer = signerFunc(func(ctx context.Context, payloadType string, payload []byte) (*provenance.Bundle, error) {
		_, digests, err := provenance.DecodeStatement(payload, nil)
		if err != nil {
			return nil, err
		}
		subjects = append(subjects, string(digests[0]))
		return p.signer.Sign(ctx, payloadType, payload)
	})
	inBubble(t, func(t *testing.T) {
		d, err := p.client(&liar{memory, other}).Push(t.Context(), repository+":mine", small(), o)
		if err == nil && d.Digest == other.Digest || slices.Contains(subjects, string(other.Digest)) {
			t.Errorf("the digest that the registry returned was signed: %v, %v", d.Digest, err)
		}
	})
}

type signerFunc func(context.Context, string, []byte) (*provenance.Bundle, error)

func (f signerFunc) Sign(ctx context.Context, payloadType string, payload []byte) (*provenance.Bundle, error) {
	return f(ctx, payloadType, payload)
}

// liar says that every manifest it stored was another one.
type liar struct {
	registry.Opener
	other ocispec.Descriptor
}

func (l *liar) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := l.Opener.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return liarStore{s.(registry.WriteStore), l.other}, nil
}

type liarStore struct {
	registry.WriteStore
	other ocispec.Descriptor
}

func (s liarStore) PushManifest(ctx context.Context, mediaType string, b []byte) (ocispec.Descriptor, error) {
	_, err := s.WriteStore.PushManifest(ctx, mediaType, b)
	return s.other, err
}
