// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// Mount asks for a blob of another repository of the same host.
func (r *remote) Mount(ctx context.Context, d ocispec.Descriptor, fromRepository string) (bool, error) {
	ref := d.Digest.String()
	if err := checkRange(d, 0, d.Size); err != nil {
		return false, r.fail("mount", "", err)
	}
	if !repositoryPattern.MatchString(fromRepository) {
		return false, r.fail("mount", ref, fmt.Errorf("source %.100q is not the path of a repository", fromRepository))
	}
	u := r.at("blobs", "uploads/")
	u.RawQuery = url.Values{"mount": {ref}, "from": {fromRepository}}.Encode()
	resp, err := r.do(ctx, call{
		method: http.MethodPost,
		url:    u,
		scopes: slices.Concat(r.scopes(scopePush), []string{auth.ScopeRepository(fromRepository, auth.ActionPull)}),
	})
	if err != nil {
		return false, r.fail("mount", ref, err)
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		resp.Body.Close()
		if err := checkStored(resp, d.Digest); err != nil {
			return false, r.fail("mount", ref, err)
		}
		return true, nil
	case http.StatusAccepted:
		resp.Body.Close()
		if session, err := r.location(resp); err == nil {
			r.abandon(ctx, session, false)
		}
		return false, nil
	}
	return false, r.refused("mount", ref, resp)
}
