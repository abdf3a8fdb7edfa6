// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// pages follows the Link headers of a listing, within the origin of the
// registry and within the limits.
func (r *remote) pages(ctx context.Context, op, reference string, u *url.URL, accept string, budget int64, page func(*http.Response, []byte) error) error {
	for range maxPages {
		resp, err := r.do(ctx, call{
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
			if accept == ocispec.MediaTypeImageIndex && r.referrers.Load() != referrersListed {
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
		next, err := nextPage(resp, r.base)
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

// Tags follows the order of the registry. Referrers tags are listed as well.
func (r *remote) Tags(ctx context.Context) iter.Seq2[string, error] {
	return list(ctx, r, func(s *remote) iter.Seq2[string, error] { return s.ownTags(ctx) })
}

func (r *remote) ownTags(ctx context.Context) iter.Seq2[string, error] {
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
