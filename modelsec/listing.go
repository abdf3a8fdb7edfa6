// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// Bounds of what is read to find attestations. FORMAT.md §11.
const (
	maxReferrersRead = 1024
	maxBundles       = 256
	bundleBatch      = 16
	largeBundle      = 256 << 10 // such are read one at a time

	keptReferrers = 64 // manifests of at most
	keptReferrer  = 8 << 10
)

// listing is what a registry says refers to a manifest, sorted by what it
// claims each to be. The claim only decides what is looked at first.
type listing struct {
	bundles, grants, unknown []ocispec.Descriptor
	seen                     map[godigest.Digest]bool
	flooded                  bool // there is more than is listed

	mu   sync.Mutex
	read map[godigest.Digest]*ocispec.Manifest // of small referrers, so that none is fetched twice
}

func listReferrers(ctx context.Context, store registry.Store, subject ocispec.Descriptor) (*listing, error) {
	l := &listing{seen: make(map[godigest.Digest]bool), read: make(map[godigest.Digest]*ocispec.Manifest)}
	err := l.add(ctx, store, subject, "")
	if !errors.Is(err, registry.ErrLimit) {
		return l, err
	}
	l.flooded = true
	// A flood must not hide what comes before it, nor, where the registry
	// filters, what is of another type.
	for _, artifactType := range []string{provenance.BundleMediaType, grantArtifactType} {
		if err := l.add(ctx, store, subject, artifactType); err != nil && !errors.Is(err, registry.ErrLimit) {
			return nil, err
		}
	}
	return l, nil
}

// add lists the referrers of one type, or all.
func (l *listing) add(ctx context.Context, store registry.Store, subject ocispec.Descriptor, artifactType string) error {
	for d, err := range store.Referrers(ctx, subject, artifactType) {
		switch {
		case err != nil:
			return err
		case l.seen[d.Digest]:
		case d.ArtifactType == provenance.BundleMediaType:
			l.bundles = append(l.bundles, d)
		case d.ArtifactType == grantArtifactType:
			l.grants = append(l.grants, d)
		default:
			// cosign on registries without the referrers API lists its bundles
			// under the type of their empty config.
			l.unknown = append(l.unknown, d)
		}
		l.seen[d.Digest] = true
	}
	return nil
}

// bundleCandidates are the referrers to read for attestations, in order. Of a
// flood they are both ends: most registries list in order of arrival, so what
// was there before it is at one, and what came after it at the other.
func (l *listing) bundleCandidates() []ocispec.Descriptor {
	all := slices.Concat(bothEnds(l.bundles, maxReferrersRead), l.unknown, l.grants)
	return all[:min(len(all), maxReferrersRead)]
}

func bothEnds(list []ocispec.Descriptor, limit int) []ocispec.Descriptor {
	n := len(list)
	if n <= limit {
		return list
	}
	return slices.Concat(list[:limit/2], list[n-limit/2:])
}

// grantCandidates are the referrers to read for grants, newest first where
// registries list in order of arrival, which most do.
func (l *listing) grantCandidates() []ocispec.Descriptor {
	newest := slices.Clone(l.grants)
	slices.Reverse(newest)
	return slices.Concat(newest, l.unknown, l.bundles)
}

// attestation is a bundle and the referrer, or the layer, that held it.
type attestation struct {
	desc   ocispec.Descriptor // zero where the caller had the bundle
	bundle *provenance.Bundle
}

// fetchBundles reads the attestations of subject and hands each to use. What
// cannot be read as one is left out: it proves nothing, and anybody can put it
// there.
func fetchBundles(ctx context.Context, store registry.Store, subject ocispec.Descriptor, l *listing, use func(attestation)) error {
	var r bundleReader
	return readBundles(ctx, l.bundleCandidates(), func(d ocispec.Descriptor) (*provenance.Bundle, error) {
		return r.fetch(ctx, store, l, d, subject)
	}, use)
}

// readBundles reads some at a time. It holds none of them: a flood of large ones
// would take all memory before the first signature was looked at.
func readBundles(ctx context.Context, candidates []ocispec.Descriptor, read func(ocispec.Descriptor) (*provenance.Bundle, error), use func(attestation)) error {
	used := 0
	for batch := range slices.Chunk(candidates, bundleBatch) {
		found := make([]*provenance.Bundle, len(batch))
		errs := make([]error, len(batch))
		var fetches sync.WaitGroup
		for i, d := range batch {
			fetches.Go(func() { found[i], errs[i] = read(d) })
		}
		fetches.Wait()
		for i, err := range errs {
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case temporary(err):
				// Not to be told apart from evidence that was withheld.
				return err
			case found[i] != nil && used < maxBundles:
				used++
				use(attestation{batch[i], found[i]})
			}
		}
	}
	return nil
}

// fetch reads the manifest of a referrer and demands that it is one of subject:
// the listing is a claim of whoever runs the registry. What it returns is shared.
func (l *listing) fetch(ctx context.Context, store registry.Store, d, subject ocispec.Descriptor) (*ocispec.Manifest, error) {
	l.mu.Lock()
	m := l.read[d.Digest]
	l.mu.Unlock()
	if m != nil {
		return m, nil
	}
	d.MediaType = ocispec.MediaTypeImageManifest
	b, err := readBlob(ctx, store, d, maxReferrerManifest)
	if err != nil {
		return nil, err
	}
	if m, err = decodeManifest(b); err != nil {
		return nil, err
	}
	if m.Subject == nil || m.Subject.Digest != subject.Digest {
		return nil, fmt.Errorf("%w: %s is not a referrer of %s", ErrFormat, d.Digest, subject.Digest)
	}
	if len(m.Layers) == 0 {
		return nil, fmt.Errorf("%w: referrer %s has no layers", ErrFormat, d.Digest)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(b) <= keptReferrer && len(l.read) < keptReferrers {
		l.read[d.Digest] = m
	}
	return m, nil
}

// bundleReader keeps parsing from taking many times what is parsed.
type bundleReader struct{ large sync.Mutex }

// fetch returns nil without an error for what is no attestation.
func (r *bundleReader) fetch(ctx context.Context, store registry.Store, l *listing, d, subject ocispec.Descriptor) (*provenance.Bundle, error) {
	m, err := l.fetch(ctx, store, d, subject)
	if err != nil || !isBundle(m) {
		return nil, err
	}
	return r.read(ctx, store, m.Layers[0], provenance.ParseBundle)
}

func (r *bundleReader) read(ctx context.Context, store registry.Store, d ocispec.Descriptor, parse func([]byte) (*provenance.Bundle, error)) (*provenance.Bundle, error) {
	if d.Size > largeBundle {
		r.large.Lock()
		defer r.large.Unlock()
	}
	b, err := readBlob(ctx, store, d, maxReferrerBlob)
	if err != nil {
		return nil, err
	}
	return parse(b)
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}
