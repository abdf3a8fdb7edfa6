// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"io"
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Fetch asks for closed ranges only, which every registry that has ranges
// understands, and for no range at all where the whole blob is wanted: an
// empty blob has no range, and some registries answer 416 to one that covers
// everything. Manifests are the exception to "not verified": they are small,
// and hashed here as in Resolve.
func (r *remote) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	ref := d.Digest.String()
	if err := checkRange(d, off, n); err != nil {
		return nil, r.fail("fetch", "", err)
	}
	if isManifest(d.MediaType) {
		return r.fetchManifest(ctx, d, off, n)
	}
	c := call{
		method: http.MethodGet,
		url:    r.atContent(d),
		header: http.Header{"Accept-Encoding": {"identity"}},
		scopes: r.scopes(scopePull),
	}
	want := http.StatusOK
	if n != d.Size {
		want = http.StatusPartialContent
		c.header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	resp, err := r.do(ctx, c)
	if err != nil {
		return nil, r.fail("fetch", ref, err)
	}
	ranged := want == http.StatusPartialContent
	switch {
	case resp.StatusCode == want:
		err = checkBody(resp, d, off, n, ranged)
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent:
		err = fmt.Errorf("%w: asked for %d bytes at %d of %d", ErrRangeIgnored, n, off, d.Size)
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		return nil, r.failStatus("fetch", ref, resp.StatusCode, fmt.Errorf("%w: refused %d bytes at %d of %d", ErrRangeIgnored, n, off, d.Size))
	default:
		return nil, r.refused("fetch", ref, resp)
	}
	if err != nil {
		resp.Body.Close()
		return nil, r.failStatus("fetch", ref, resp.StatusCode, err)
	}
	return &exactReader{store: r, ref: ref, body: resp.Body, off: off, n: n, sized: resp.ContentLength >= 0}, nil
}

// checkBody compares the head of a reply with what was asked for. A reply
// with several parts has no Content-Range, and is refused by its absence.
func checkBody(resp *http.Response, d ocispec.Descriptor, off, n int64, ranged bool) error {
	if err := checkEncoding(resp); err != nil {
		return err
	}
	if ranged {
		want := fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, d.Size)
		if got := resp.Header.Get("Content-Range"); got != want {
			return fmt.Errorf("%w: Content-Range is %q, want %q", ErrRangeIgnored, clip(got), want)
		}
	}
	if resp.ContentLength >= 0 && resp.ContentLength != n {
		return fmt.Errorf("%w: body of %d bytes, want %d", ErrInvalid, resp.ContentLength, n)
	}
	return nil
}

// exactReader yields n bytes and io.EOF, or an error that is not io.EOF.
type exactReader struct {
	store *remote
	ref   string
	body  io.ReadCloser
	off   int64
	n     int64
	done  int64
	sized bool // the head of the reply said n
	err   error
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	if e.done == e.n {
		e.err = e.end()
		return 0, e.err
	}
	n, err := e.body.Read(p[:min(int64(len(p)), e.n-e.done)])
	e.done += int64(n)
	switch {
	case err == io.EOF && e.done == e.n:
		e.err = io.EOF
	case err == io.EOF:
		e.err = e.fail(io.ErrUnexpectedEOF)
	case err != nil:
		e.err = e.fail(err)
	}
	return n, e.err
}

// end looks for bytes beyond the last one, which only a body without a
// length can have.
func (e *exactReader) end() error {
	if e.sized {
		return io.EOF
	}
	var one [1]byte
	switch n, err := io.ReadFull(e.body, one[:]); {
	case n > 0:
		return e.fail(fmt.Errorf("%w: body goes on", ErrInvalid))
	case err != io.EOF:
		return e.fail(err)
	}
	return io.EOF
}

func (e *exactReader) fail(err error) error {
	return e.store.fail("fetch", e.ref, fmt.Errorf("after %d of %d bytes at %d: %w", e.done, e.n, e.off, err))
}

func (e *exactReader) Close() error {
	if e.err == nil {
		e.err = e.fail(errReaderClosed)
	}
	return e.body.Close()
}
