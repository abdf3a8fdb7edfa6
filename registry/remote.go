// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/registry/remote/auth"
)

// remote is a repository of a registry. It speaks distribution-spec 1.1 over
// the authorizer of its endpoint. The calls for manifests, tags and referrers
// are not those of oras-go, which believes Docker-Content-Digest, decodes JSON
// leniently, and bounds pages but not what they add up to.
type remote struct {
	endpoint   *endpoint
	base       *url.URL // of the API; that of the endpoint, or of a mirror's own choice
	repository string

	// Of a store that is a mirror.
	header    http.Header
	namespace string // the registry it stands for, where it wants to know
	attempts  int    // 0: maxAttempts

	mirrors []*mirror
	asked   answers
	written atomic.Bool // mirrors may be behind from then on

	referrers atomic.Int32 // what is known about the API
}

var (
	scopePull   = []string{auth.ActionPull}
	scopePush   = []string{auth.ActionPull, auth.ActionPush}
	scopeDelete = []string{auth.ActionPull, auth.ActionPush, auth.ActionDelete}
)

// scopes is the access to ask for. ScopeRepository sorts what it is given.
func (r *remote) scopes(actions []string) []string {
	return []string{auth.ScopeRepository(r.repository, slices.Clone(actions)...)}
}

// at is the address of something in the repository.
func (r *remote) at(parts ...string) *url.URL {
	return r.base.JoinPath(append([]string{r.repository}, parts...)...)
}

// do sends c in the way of this store.
func (r *remote) do(ctx context.Context, c call) (*http.Response, error) {
	if len(r.header) > 0 {
		header := r.header.Clone()
		maps.Copy(header, c.header)
		c.header = header
	}
	if r.namespace != "" {
		u := *c.url
		query := u.Query()
		query.Set("ns", r.namespace)
		u.RawQuery = query.Encode()
		c.url = &u
	}
	if c.attempts == 0 {
		c.attempts = r.attempts
	}
	return r.endpoint.do(context.WithValue(ctx, repositoryKey{}, r.repository), c)
}

func (r *remote) atContent(d ocispec.Descriptor) *url.URL {
	if isManifest(d.MediaType) {
		return r.at("manifests", d.Digest.String())
	}
	return r.at("blobs", d.Digest.String())
}

func (r *remote) fail(op, reference string, err error) error {
	return r.failStatus(op, reference, statusOf(err), err)
}

func (r *remote) failStatus(op, reference string, status int, err error) error {
	return &Error{Op: op, Host: r.endpoint.host, Repository: r.repository, Reference: reference, Status: status, Err: err}
}

func (r *remote) refused(op, reference string, resp *http.Response) error {
	return r.failStatus(op, reference, resp.StatusCode, refusal(resp))
}

func (r *remote) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	d, _, err := r.ResolveManifest(ctx, tagOrDigest)
	return d, err
}

func (r *remote) ResolveManifest(ctx context.Context, tagOrDigest string) (d ocispec.Descriptor, b []byte, err error) {
	err = r.ask(ctx, func(s *remote) error {
		d, b, err = s.manifest(ctx, "resolve", tagOrDigest)
		return err
	})
	return d, b, err
}

// manifest reads a manifest and checks it. Docker-Content-Digest is ignored:
// only the bytes count.
func (r *remote) manifest(ctx context.Context, op, tagOrDigest string) (ocispec.Descriptor, []byte, error) {
	var want digest.Digest
	if err := checkTagOrDigest(tagOrDigest); err != nil {
		return ocispec.Descriptor{}, nil, r.fail(op, "", err)
	}
	if strings.ContainsRune(tagOrDigest, ':') {
		want = digest.Digest(tagOrDigest)
	}
	resp, err := r.do(ctx, call{
		method: http.MethodGet,
		url:    r.at("manifests", tagOrDigest),
		header: http.Header{"Accept": manifestTypes, "Accept-Encoding": {"identity"}},
		scopes: r.scopes(scopePull),
	})
	if err != nil {
		return ocispec.Descriptor{}, nil, r.fail(op, tagOrDigest, err)
	}
	if resp.StatusCode != http.StatusOK {
		return ocispec.Descriptor{}, nil, r.refused(op, tagOrDigest, resp)
	}
	defer resp.Body.Close()
	b, err := readDocument(resp, maxManifest)
	if err != nil {
		return ocispec.Descriptor{}, nil, r.fail(op, tagOrDigest, err)
	}
	mediaType, err := contentType(resp)
	if err != nil {
		return ocispec.Descriptor{}, nil, r.fail(op, tagOrDigest, err)
	}
	_, d, err := parseManifest(mediaType, b)
	if err == nil && want != "" && d.Digest != want {
		err = fmt.Errorf("%w: the %d bytes served have digest %s", ErrInvalid, len(b), d.Digest)
	}
	if err != nil {
		return ocispec.Descriptor{}, nil, r.fail(op, tagOrDigest, err)
	}
	return d, b, nil
}

func contentType(resp *http.Response) (string, error) {
	value := resp.Header.Get("Content-Type")
	if value == "" {
		return "", nil
	}
	mediaType, _, err := mime.ParseMediaType(value)
	if err != nil {
		return "", fmt.Errorf("%w: Content-Type %q", ErrInvalid, clip(value))
	}
	return mediaType, nil
}

// readDocument reads a body that must not be larger than limit.
func readDocument(resp *http.Response, limit int64) ([]byte, error) {
	if err := checkEncoding(resp); err != nil {
		return nil, err
	}
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: document of %d bytes, limit %d", ErrLimit, resp.ContentLength, limit)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("after %d bytes: %w", len(b), err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: document of more than %d bytes", ErrLimit, limit)
	}
	return b, nil
}

func checkEncoding(resp *http.Response) error {
	if coding := resp.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return fmt.Errorf("%w: Content-Encoding %q", ErrInvalid, clip(coding))
	}
	return nil
}

func (r *remote) Has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	ref := d.Digest.String()
	if err := checkRange(d, 0, d.Size); err != nil {
		return false, r.fail("check", "", err)
	}
	resp, err := r.do(ctx, call{
		method: http.MethodHead,
		url:    r.atContent(d),
		header: http.Header{"Accept": acceptFor(d), "Accept-Encoding": {"identity"}},
		scopes: r.scopes(scopePush),
	})
	if err != nil {
		return false, r.fail("check", ref, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		resp.Body.Close()
		return false, nil
	default:
		return false, r.refused("check", ref, resp)
	}
	resp.Body.Close()
	if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
		return false, r.fail("check", ref, fmt.Errorf("%w: registry has %d bytes, descriptor says %d", ErrInvalid, resp.ContentLength, d.Size))
	}
	return true, nil
}

func acceptFor(d ocispec.Descriptor) []string {
	if isManifest(d.MediaType) {
		return manifestTypes
	}
	return []string{"*/*"}
}

// fetchManifest serves ranges of manifests, for which registries have none.
func (r *remote) fetchManifest(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	var b []byte
	err := r.ask(ctx, func(s *remote) (err error) {
		_, b, err = s.manifest(ctx, "fetch", d.Digest.String())
		if err == nil && int64(len(b)) != d.Size {
			err = s.fail("fetch", d.Digest.String(), fmt.Errorf("%w: %d bytes, descriptor says %d", ErrInvalid, len(b), d.Size))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b[off : off+n])), nil
}
