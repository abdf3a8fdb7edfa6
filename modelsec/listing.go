// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"slices"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// Bounds of what is read to find attestations. FORMAT.md §11.
const (
	maxReferrersRead = 1024
	maxBundles       = 256
	bundleBatch      = 16
)

// listing is what a registry says refers to a manifest, sorted by what it
// claims each to be. The claim only decides what is looked at first.
type listing struct {
	bundles, grants, unknown []ocispec.Descriptor
	truncated                bool
}

func listReferrers(ctx context.Context, store registry.Store, subject ocispec.Descriptor) (*listing, error) {
	l := &listing{}
	for d, err := range store.Referrers(ctx, subject, "") {
		switch {
		case errors.Is(err, registry.ErrLimit):
			// A flooded listing must not hide what comes before the flood.
			l.truncated = true
			return l, nil
		case err != nil:
			return nil, err
		case d.ArtifactType == provenance.BundleMediaType:
			l.bundles = append(l.bundles, d)
		case d.ArtifactType == grantArtifactType:
			l.grants = append(l.grants, d)
		default:
			// cosign on registries without the referrers API lists its bundles
			// under the type of their empty config.
			l.unknown = append(l.unknown, d)
		}
	}
	return l, nil
}

// bundleCandidates are the referrers to read for attestations, in order.
func (l *listing) bundleCandidates() []ocispec.Descriptor {
	all := slices.Concat(l.bundles, l.unknown, l.grants)
	return all[:min(len(all), maxReferrersRead)]
}

// grantCandidates are the referrers to read for grants, newest first where
// registries list in order of arrival, which most do.
func (l *listing) grantCandidates() []ocispec.Descriptor {
	newest := slices.Clone(l.grants)
	slices.Reverse(newest)
	return slices.Concat(newest, l.unknown, l.bundles)
}

// attestation is a bundle and the referrer that held it.
type attestation struct {
	desc   ocispec.Descriptor // zero where the caller had the bundle
	bundle *provenance.Bundle
}

// fetchBundles reads the attestations of subject. What cannot be read as one
// is left out: it proves nothing, and anybody can put it there.
func fetchBundles(ctx context.Context, store registry.Store, subject ocispec.Descriptor, l *listing) ([]attestation, error) {
	var out []attestation
	for batch := range slices.Chunk(l.bundleCandidates(), bundleBatch) {
		found := make([]*provenance.Bundle, len(batch))
		errs := make([]error, len(batch))
		var fetches sync.WaitGroup
		for i, d := range batch {
			fetches.Go(func() { found[i], errs[i] = fetchBundle(ctx, store, d, subject) })
		}
		fetches.Wait()
		for i, err := range errs {
			switch {
			case ctx.Err() != nil:
				return nil, ctx.Err()
			case temporary(err):
				// Not to be told apart from evidence that was withheld.
				return nil, err
			case found[i] != nil && len(out) < maxBundles:
				out = append(out, attestation{batch[i], found[i]})
			}
		}
	}
	return out, nil
}

// fetchBundle returns nil without an error for what is no attestation.
func fetchBundle(ctx context.Context, store registry.Store, d, subject ocispec.Descriptor) (*provenance.Bundle, error) {
	m, err := fetchReferrer(ctx, store, d, subject)
	if err != nil || !isBundle(m) || len(m.Layers) != 1 {
		return nil, err
	}
	b, err := readBlob(ctx, store, m.Layers[0], maxReferrerBlob)
	if err != nil {
		return nil, err
	}
	return provenance.ParseBundle(b)
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}
