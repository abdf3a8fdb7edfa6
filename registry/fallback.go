// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// fallbackTag is where clients keep the listing on a registry without the API
// (distribution-spec 1.1, "Referrers Tag Schema").
func fallbackTag(subject digest.Digest) string {
	return strings.Replace(subject.String(), ":", "-", 1)
}

// taggedReferrers reads that listing. No tag means an empty one.
func (r *remote) taggedReferrers(ctx context.Context, subject digest.Digest) ([]ocispec.Descriptor, error) {
	d, b, err := r.manifest(ctx, "list referrers", fallbackTag(subject))
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if d.MediaType != ocispec.MediaTypeImageIndex {
		return nil, fmt.Errorf("%w: %s is of type %q, want an index", ErrInvalid, fallbackTag(subject), clip(d.MediaType))
	}
	index, err := parseIndex(b)
	return index.Manifests, err
}

// listReferrers sees to it that what was just pushed is listed for its subject.
func (r *remote) listReferrers(ctx context.Context, subject digest.Digest, list []pushed) error {
	tagged, err := r.keepsTag(ctx, subject)
	if err != nil {
		return err
	}
	if !tagged {
		for _, p := range list {
			if err := r.awaitReferrer(ctx, subject, p.desc, p.b); err != nil {
				return err
			}
		}
		return nil
	}
	return r.rewriteReferrers(ctx, subject, func(manifests []ocispec.Descriptor) (changed []ocispec.Descriptor) {
		for _, p := range list {
			if !lists(manifests, p.desc.Digest) {
				manifests = append(manifests, p.manifest.referrer(p.desc))
				changed = manifests
			}
		}
		return changed
	})
}

func lists(manifests []ocispec.Descriptor, d digest.Digest) bool {
	return slices.ContainsFunc(manifests, func(l ocispec.Descriptor) bool { return l.Digest == d })
}

// awaitReferrer reads the listing back and pushes the manifest again until it
// is there: some registries with the API lose entries that are pushed at the
// same time. An entry that a writer elsewhere undoes after this look is lost;
// a registry that does so loses the entries of every client.
func (r *remote) awaitReferrer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor, b []byte) error {
	for attempt := range fallbackAttempts {
		listed, asked := false, time.Now()
		err := r.listedReferrers(ctx, subject, "", func(manifests []ocispec.Descriptor) error {
			if listed = lists(manifests, d.Digest); listed {
				return errEnough
			}
			return nil
		})
		if listed {
			return nil
		}
		if err != nil {
			return err
		}
		if err := settle(ctx, time.Since(asked), attempt+1); err != nil {
			return err
		}
		if _, err := r.putManifest(ctx, d, b, d.Digest.String()); err != nil {
			return err
		}
	}
	return fmt.Errorf("registry took the manifest %d times and does not list it", fallbackAttempts)
}

// settle waits for a writer who got into our way to be done. When one was seen to
// have, it waits longer each time, and by chance, so that the two draw apart.
// gap is what passed between our read and our write.
func settle(ctx context.Context, gap time.Duration, undone int) error {
	wait := min(max(fallbackGaps*gap, fallbackSettle), fallbackSettleMax)
	if undone > 0 {
		wait += rand.N(wait << min(undone, 4))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// unlistReferrer removes d from the listing of its subject, where clients
// keep that.
func (r *remote) unlistReferrer(ctx context.Context, m manifest, d ocispec.Descriptor) error {
	if tagged, err := r.keepsTag(ctx, m.Subject.Digest); err != nil || !tagged {
		return err
	}
	return r.rewriteReferrers(ctx, m.Subject.Digest, func(manifests []ocispec.Descriptor) []ocispec.Descriptor {
		kept := slices.DeleteFunc(slices.Clone(manifests), func(l ocispec.Descriptor) bool { return l.Digest == d.Digest })
		if len(kept) == len(manifests) {
			return nil
		}
		return kept
	})
}

// keepsTag finds out whether the registry leaves the listing to its clients.
func (r *remote) keepsTag(ctx context.Context, subject digest.Digest) (bool, error) {
	if r.referrers.Load() == referrersUnknown {
		err := r.listedReferrers(ctx, subject, "", func([]ocispec.Descriptor) error { return errEnough })
		switch {
		case errors.Is(err, errNoReferrersAPI):
			r.referrers.Store(referrersTagged)
		case err != nil && !errors.Is(err, errEnough):
			return false, err
		}
	}
	return r.referrers.Load() == referrersTagged, nil
}

// rewriteReferrers changes the listing under a tag. No registry honours a
// conditional PUT, so the change is written and read back until it is there
// twice, some time apart: a writer who read before our write and wrote after
// it has undone it by then. change returns nil when nothing is left to do.
func (r *remote) rewriteReferrers(ctx context.Context, subject digest.Digest, change func([]ocispec.Descriptor) []ocispec.Descriptor) error {
	writes, seen := 0, false
	var gap time.Duration
	for range fallbackAttempts {
		read := time.Now()
		manifests, err := r.taggedReferrers(ctx, subject)
		if err != nil {
			return err
		}
		changed := change(manifests)
		switch {
		case changed == nil && (writes == 0 || seen):
			return nil
		case changed == nil:
			seen = true
		default:
			writes, seen = writes+1, false
			b, err := marshalIndex(changed)
			if err != nil {
				return err
			}
			if len(b) > maxManifest || len(changed) > maxReferrers {
				return fmt.Errorf("%w: listing of %d bytes and %d entries", ErrLimit, len(b), len(changed))
			}
			_, d, err := parseManifest(ocispec.MediaTypeImageIndex, b)
			if err != nil {
				return err
			}
			if _, err := r.putManifest(ctx, d, b, fallbackTag(subject)); err != nil {
				return err
			}
			gap = time.Since(read)
			if writes == 1 {
				continue
			}
		}
		if err := settle(ctx, gap, writes-1); err != nil {
			return err
		}
	}
	return fmt.Errorf("other writers undid the change of %s %d times", fallbackTag(subject), fallbackAttempts)
}
