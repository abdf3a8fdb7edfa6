// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// What is known about the referrers API of a host.
const (
	referrersUnknown int32 = iota
	referrersListed        // it has the API
	referrersTagged        // clients keep an index under a tag instead
)

func (r *remote) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
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
	if r.endpoint.referrers.Load() != referrersTagged {
		err := r.listedReferrers(ctx, subject, artifactType, page)
		if !errors.Is(err, errNoReferrersAPI) {
			return err
		}
	}
	_, manifests, err := r.taggedReferrers(ctx, subject)
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
		r.endpoint.referrers.Store(referrersListed)
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

// pages follows the Link headers of a listing, within the origin of the
// registry and within the limits.
func (r *remote) pages(ctx context.Context, op, reference string, u *url.URL, accept string, budget int64, page func(*http.Response, []byte) error) error {
	for range maxPages {
		resp, err := r.endpoint.do(ctx, call{
			method: http.MethodGet,
			url:    u,
			header: http.Header{"Accept": {accept}, "Accept-Encoding": {"identity"}},
			scopes: r.scopes(scopePull),
		})
		if err != nil {
			return r.fail(op, reference, err)
		}
		switch resp.StatusCode {
		case http.StatusOK:
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			if accept == ocispec.MediaTypeImageIndex && r.endpoint.referrers.Load() != referrersListed {
				resp.Body.Close()
				return errNoReferrersAPI
			}
			fallthrough
		default:
			return r.refused(op, reference, resp)
		}
		b, err := readDocument(resp, min(budget, maxManifest))
		resp.Body.Close()
		if err != nil {
			return r.fail(op, reference, err)
		}
		budget -= int64(len(b))
		if err := page(resp, b); err != nil {
			return err
		}
		next, err := nextPage(resp, r.endpoint.base)
		if err != nil {
			return r.fail(op, reference, err)
		}
		if next == nil {
			return nil
		}
		u = next
	}
	return r.fail(op, reference, fmt.Errorf("%w: more than %d pages", ErrLimit, maxPages))
}

// nextPage reads the Link header (RFC 8288, as distribution-spec uses it).
func nextPage(resp *http.Response, base *url.URL) (*url.URL, error) {
	for _, link := range resp.Header.Values("Link") {
		target, params, ok := strings.Cut(link, ">")
		target, opened := strings.CutPrefix(strings.TrimSpace(target), "<")
		if !ok || !opened {
			return nil, fmt.Errorf("%w: Link %q", ErrInvalid, clip(link))
		}
		if rel := strings.NewReplacer(" ", "", `"`, "").Replace(strings.ToLower(params)); rel != "" && !strings.Contains(rel, "rel=next") {
			continue
		}
		u, err := resp.Request.URL.Parse(target)
		if err != nil || !sameOrigin(u, base) || u.User != nil {
			return nil, fmt.Errorf("%w: next page at another origin", ErrInvalid)
		}
		return u, nil
	}
	return nil, nil
}

// fallbackTag is where clients keep the listing on a registry without the API
// (distribution-spec 1.1, "Referrers Tag Schema").
func fallbackTag(subject digest.Digest) string {
	return strings.Replace(subject.String(), ":", "-", 1)
}

// taggedReferrers reads that listing. No tag means an empty one.
func (r *remote) taggedReferrers(ctx context.Context, subject digest.Digest) (found bool, manifests []ocispec.Descriptor, err error) {
	d, b, err := r.manifest(ctx, "list referrers", fallbackTag(subject))
	if errors.Is(err, ErrNotFound) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, err
	}
	if d.MediaType != ocispec.MediaTypeImageIndex {
		return false, nil, fmt.Errorf("%w: %s is of type %q, want an index", ErrInvalid, fallbackTag(subject), clip(d.MediaType))
	}
	index, err := parseIndex(b)
	return true, index.Manifests, err
}

// listReferrer sees to it that d, just pushed, is listed for its subject.
func (r *remote) listReferrer(ctx context.Context, m manifest, d ocispec.Descriptor, b []byte, confirmed bool) error {
	if confirmed {
		r.endpoint.referrers.Store(referrersListed)
	}
	tagged, err := r.keepsTag(ctx, m.Subject.Digest)
	if err != nil {
		return err
	}
	if !tagged {
		return r.awaitReferrer(ctx, m.Subject.Digest, d, b)
	}
	entry := m.referrer(d)
	return r.rewriteReferrers(ctx, m.Subject.Digest, func(manifests []ocispec.Descriptor) []ocispec.Descriptor {
		if lists(manifests, d.Digest) {
			return nil
		}
		return append(manifests, entry)
	})
}

func lists(manifests []ocispec.Descriptor, d digest.Digest) bool {
	return slices.ContainsFunc(manifests, func(l ocispec.Descriptor) bool { return l.Digest == d })
}

// awaitReferrer reads the listing back and pushes the manifest again until it
// is there: some registries with the API lose entries that are pushed at the
// same time.
func (r *remote) awaitReferrer(ctx context.Context, subject digest.Digest, d ocispec.Descriptor, b []byte) error {
	for attempt := range fallbackAttempts {
		listed := false
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
		if err := settle(ctx, attempt); err != nil {
			return err
		}
		if _, err := r.putManifest(ctx, d, b, d.Digest.String()); err != nil {
			return err
		}
	}
	return fmt.Errorf("registry took the manifest %d times and does not list it", fallbackAttempts)
}

// settle waits, longer with every attempt, so that writers who got into each
// other's way draw apart.
func settle(ctx context.Context, attempt int) error {
	timer := time.NewTimer(fallbackSettle + rand.N(fallbackSettle<<min(attempt, 4)))
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
	if r.endpoint.referrers.Load() == referrersUnknown {
		err := r.listedReferrers(ctx, subject, "", func([]ocispec.Descriptor) error { return errEnough })
		switch {
		case errors.Is(err, errNoReferrersAPI):
			r.endpoint.referrers.Store(referrersTagged)
		case err != nil && !errors.Is(err, errEnough):
			return false, err
		}
	}
	return r.endpoint.referrers.Load() == referrersTagged, nil
}

// rewriteReferrers changes the listing under a tag. No registry honours a
// conditional PUT, so the change is written and read back until it is there
// twice, some time apart: a writer who read before our write and wrote after
// it has undone it by then. change returns nil when nothing is left to do.
func (r *remote) rewriteReferrers(ctx context.Context, subject digest.Digest, change func([]ocispec.Descriptor) []ocispec.Descriptor) error {
	r.endpoint.fallback.Lock()
	defer r.endpoint.fallback.Unlock()
	wrote, seen := false, false
	for attempt := range fallbackAttempts {
		_, manifests, err := r.taggedReferrers(ctx, subject)
		if err != nil {
			return err
		}
		changed := change(manifests)
		switch {
		case changed == nil && (!wrote || seen):
			return nil
		case changed == nil:
			seen = true
		default:
			wrote, seen = true, false
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
			if attempt == 0 {
				continue
			}
		}
		if err := settle(ctx, attempt); err != nil {
			return err
		}
	}
	return fmt.Errorf("other writers undid the change of %s %d times", fallbackTag(subject), fallbackAttempts)
}

// Tags follows the order of the registry. Referrers tags are listed as well.
func (r *remote) Tags(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		more := true
		count := 0
		u := r.at("tags", "list")
		u.RawQuery = "n=1000"
		err := r.pages(ctx, "list tags", "", u, "application/json", maxTagListing, func(_ *http.Response, b []byte) error {
			var page struct {
				Tags json.RawMessage `json:"tags"`
			}
			if err := strictjson.UnmarshalLenient(b, &page, maxManifest); err != nil {
				return r.fail("list tags", "", fmt.Errorf("%w: %w", ErrInvalid, err))
			}
			var tags []string
			if err := json.Unmarshal(page.Tags, &tags); page.Tags != nil && err != nil {
				return r.fail("list tags", "", fmt.Errorf("%w: tags are not strings", ErrInvalid))
			}
			for _, tag := range tags {
				if count++; count > maxTags {
					return fmt.Errorf("%w: more than %d tags", ErrLimit, maxTags)
				}
				if err := checkTag(tag); err != nil {
					return fmt.Errorf("%w: %w", ErrInvalid, err)
				}
				if more = yield(tag, nil); !more {
					return errEnough
				}
			}
			return nil
		})
		if err != nil && more {
			yield("", r.wrap("list tags", "", err))
		}
	}
}
