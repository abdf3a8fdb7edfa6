// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a store knows about the referrers API of its registry. A host may be
// the front of several registries, so each store finds out for itself.
const (
	referrersUnknown int32 = iota
	referrersListed        // it has the API
	referrersTagged        // clients keep an index under a tag instead
)

func (r *remote) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
	return list(ctx, r, func(s *remote) iter.Seq2[ocispec.Descriptor, error] {
		return s.ownReferrers(ctx, subject, artifactType)
	})
}

func (r *remote) ownReferrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		ref := subject.Digest.String()
		if err := checkDigest(subject.Digest); err != nil {
			yield(ocispec.Descriptor{}, r.fail("list referrers", "", err))
			return
		}
		more := true
		count := 0
		err := r.referrerPages(ctx, subject.Digest, artifactType, func(page []ocispec.Descriptor) error {
			for _, d := range page {
				if count++; count > maxReferrers {
					return fmt.Errorf("%w: more than %d referrers", ErrLimit, maxReferrers)
				}
				if more = yield(d, nil); !more {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && more {
			yield(ocispec.Descriptor{}, r.wrap("list referrers", ref, err))
		}
	}
}

// errEnough ends a listing of which the caller has seen enough.
var errEnough = errors.New("enough")

// wrap leaves errors that already say where they come from as they are.
func (r *remote) wrap(op, reference string, err error) error {
	var e *Error
	if errors.As(err, &e) {
		return err
	}
	return r.fail(op, reference, err)
}

// referrerPages calls page with the listing, part by part.
func (r *remote) referrerPages(ctx context.Context, subject digest.Digest, artifactType string, page func([]ocispec.Descriptor) error) error {
	if r.referrers.Load() != referrersTagged {
		err := r.listedReferrers(ctx, subject, artifactType, page)
		if !errors.Is(err, errNoReferrersAPI) {
			return err
		}
	}
	manifests, err := r.taggedReferrers(ctx, subject)
	if err != nil {
		return err
	}
	return page(manifests)
}

var errNoReferrersAPI = errors.New("registry has no referrers API")

func (r *remote) listedReferrers(ctx context.Context, subject digest.Digest, artifactType string, page func([]ocispec.Descriptor) error) error {
	u := r.at("referrers", subject.String())
	if artifactType != "" {
		u.RawQuery = url.Values{"artifactType": {artifactType}}.Encode()
	}
	first := true
	return r.pages(ctx, "list referrers", subject.String(), u, ocispec.MediaTypeImageIndex, maxListing, func(resp *http.Response, b []byte) error {
		mediaType, err := contentType(resp)
		if first && (err != nil || mediaType != ocispec.MediaTypeImageIndex) {
			// Registries without the API were seen to answer 200 with a page
			// for people, or with an empty document.
			return errNoReferrersAPI
		}
		first = false
		r.referrers.Store(referrersListed)
		if mediaType != ocispec.MediaTypeImageIndex {
			return fmt.Errorf("%w: page of type %q", ErrInvalid, clip(mediaType))
		}
		index, err := parseIndex(b)
		if err != nil {
			return err
		}
		return page(index.Manifests)
	})
}
