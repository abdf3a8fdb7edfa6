// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (r *remote) PushManifest(ctx context.Context, mediaType string, b []byte) (ocispec.Descriptor, error) {
	const op = "push manifest"
	m, d, err := checkPush(mediaType, b)
	if err != nil {
		return ocispec.Descriptor{}, r.fail(op, "", err)
	}
	if m.Subject != nil {
		err = r.putReferrers(ctx, m.Subject.Digest, []pushed{{m, d, b}})
	} else {
		_, err = r.putManifest(ctx, d, b, d.Digest.String())
	}
	if err != nil {
		return ocispec.Descriptor{}, r.wrap(op, d.Digest.String(), err)
	}
	return d, nil
}

func (r *remote) PushReferrers(ctx context.Context, manifests ...[]byte) ([]ocispec.Descriptor, error) {
	const op = "push referrers"
	var list []pushed
	var out []ocispec.Descriptor
	for _, b := range manifests {
		m, d, err := checkPush(ocispec.MediaTypeImageManifest, b)
		if err != nil {
			return nil, r.fail(op, "", err)
		}
		if m.Subject == nil || len(list) > 0 && m.Subject.Digest != list[0].manifest.Subject.Digest {
			return nil, r.fail(op, d.Digest.String(), fmt.Errorf("%w: referrers that are pushed together have one subject", ErrInvalid))
		}
		list, out = append(list, pushed{m, d, b}), append(out, d)
	}
	if len(list) == 0 {
		return nil, nil
	}
	subject := list[0].manifest.Subject.Digest
	if err := r.putReferrers(ctx, subject, list); err != nil {
		return nil, r.wrap(op, subject.String(), err)
	}
	return out, nil
}

// pushed is a manifest on its way.
type pushed struct {
	manifest manifest
	desc     ocispec.Descriptor
	b        []byte
}

// putReferrers stores manifests and sees to it that their subject lists them.
func (r *remote) putReferrers(ctx context.Context, subject digest.Digest, list []pushed) error {
	return r.changeListing(ctx, subject, func() error {
		for _, p := range list {
			header, err := r.putManifest(ctx, p.desc, p.b, p.desc.Digest.String())
			if err != nil {
				return err
			}
			if header.Get("OCI-Subject") != "" {
				r.referrers.Store(referrersListed)
			}
		}
		if err := r.listReferrers(ctx, subject, list); err != nil {
			return fmt.Errorf("listing it for its subject: %w", err)
		}
		return nil
	})
}

// changeListing runs change while no other change to the listing of subject is
// under way.
func (r *remote) changeListing(ctx context.Context, subject digest.Digest, change func() error) error {
	return r.endpoint.listings.change(ctx, r.repository+"@"+subject.String(), change)
}

// putManifest stores b under a tag or its digest. The digest is that of b, so a
// registry that refuses it for another is asked again: docker-registry 2.8 says
// so when a blob that b names is being pushed by somebody else.
func (r *remote) putManifest(ctx context.Context, d ocispec.Descriptor, b []byte, reference string) (http.Header, error) {
	r.written.Store(true)
	for attempt := 1; ; attempt++ {
		resp, err := r.do(ctx, call{
			method:   http.MethodPut,
			url:      r.at("manifests", reference),
			header:   http.Header{"Content-Type": {d.MediaType}},
			body:     b,
			scopes:   r.scopes(scopePush),
			patience: commitTimeout,
		})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode == http.StatusCreated {
			resp.Body.Close()
			return resp.Header, checkStored(resp, d.Digest)
		}
		err = r.refused("put", reference, resp)
		if attempt == maxAttempts || !errors.Is(err, errMisread) {
			return nil, err
		}
		if err := backOff(ctx, attempt, 0); err != nil {
			return nil, err
		}
	}
}

// checkStored refuses a success that names another digest than ours.
func checkStored(resp *http.Response, want digest.Digest) error {
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != want.String() {
		return fmt.Errorf("%w: registry stored %q", ErrInvalid, clip(got))
	}
	return nil
}

func (r *remote) Tag(ctx context.Context, d ocispec.Descriptor, tag string) error {
	if err := errors.Join(checkTag(tag), checkDigest(d.Digest)); err != nil {
		return r.fail("tag", "", err)
	}
	found, b, err := r.manifest(ctx, "tag", d.Digest.String())
	if err != nil {
		return err
	}
	if _, err := r.putManifest(ctx, found, b, tag); err != nil {
		return r.wrap("tag", tag, err)
	}
	return nil
}

func (r *remote) Delete(ctx context.Context, d ocispec.Descriptor) error {
	ref := d.Digest.String()
	if err := checkRange(d, 0, d.Size); err != nil {
		return r.fail("delete", "", err)
	}
	r.written.Store(true)
	if isManifest(d.MediaType) {
		// The entry first: a listing never names what is gone.
		_, b, err := r.manifest(ctx, "delete", ref)
		if err != nil {
			return err
		}
		m, _, err := parseManifest(d.MediaType, b)
		if err != nil {
			return r.fail("delete", ref, err)
		}
		if m.Subject != nil {
			err := r.changeListing(ctx, m.Subject.Digest, func() error { return r.unlistReferrer(ctx, m, d) })
			if err != nil {
				return r.wrap("delete", ref, fmt.Errorf("removing it from the listing of its subject: %w", err))
			}
		}
	}
	resp, err := r.do(ctx, call{method: http.MethodDelete, url: r.atContent(d), scopes: r.scopes(scopeDelete)})
	if err != nil {
		return r.fail("delete", ref, err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		resp.Body.Close()
		return nil
	}
	err = r.refused("delete", ref, resp)
	if errors.Is(err, ErrNotFound) {
		// Some registries have no such route, and say so in the same way.
		if there, hasErr := r.Has(ctx, d); hasErr == nil && there {
			err = r.failStatus("delete", ref, http.StatusNotFound, ErrUnsupported)
		}
	}
	return err
}
