// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Putter is implemented by a [WriteStore] that can take a blob of known digest
// in one piece. That is one request less than Create, Write and Commit, and
// unlike these it is tried again where it fails: small blobs should always go
// this way.
type Putter interface {
	// Put stores the blob d, the d.Size bytes of content, which must stay as
	// they are until Put returns and are read more than once where an attempt
	// fails. Content of another digest is refused by the other side. A registry
	// that does not take the blob in this form makes it [ErrUploadForm]; the
	// blob may then be sent through Create.
	Put(ctx context.Context, d ocispec.Descriptor, content io.ReaderAt) error

	// PutFirst reports whether a blob of that size should go through Put
	// although its digest has to be computed first, because the registry is
	// known, or has shown, not to take the form of Create.
	PutFirst(size int64) bool
}

func (r *remote) PutFirst(size int64) bool {
	p := r.endpoint.profile
	return UploadForm(p.form.Load()) == UploadWhole && p.takesWhole(size)
}

// Put sends POST and PUT. A session whose PUT failed is not used again:
// whether it still exists, and where it stands, differs between registries.
func (r *remote) Put(ctx context.Context, d ocispec.Descriptor, content io.ReaderAt) error {
	const op = "put"
	ref := d.Digest.String()
	if err := checkRange(d, 0, d.Size); err != nil {
		return r.fail(op, "", err)
	}
	if !r.endpoint.profile.takesWhole(d.Size) {
		return r.fail(op, ref, fmt.Errorf("%w: %d bytes are more than this registry is known to take at once", ErrUploadForm, d.Size))
	}
	for attempt := 1; ; attempt++ {
		session, _, err := r.begin(ctx, op, ref, false)
		if err != nil {
			return err
		}
		least, err := r.putOnce(ctx, session, d, content)
		if err == nil {
			return nil
		}
		r.abandon(ctx, session, false)
		var e *Error
		if attempt == maxAttempts || ctx.Err() != nil || !errors.As(err, &e) || !e.Temporary() {
			return err
		}
		if err := backOff(ctx, attempt, least); err != nil {
			return r.fail(op, ref, err)
		}
		// The reply to a PUT that worked may have been lost.
		if there, err := r.Has(ctx, d); err == nil && there {
			return nil
		}
	}
}

// putOnce returns with an error the least time to wait before the next attempt.
func (r *remote) putOnce(ctx context.Context, session *url.URL, d ocispec.Descriptor, content io.ReaderAt) (least time.Duration, err error) {
	const op = "put"
	ref := d.Digest.String()
	resp, err := r.do(ctx, call{
		method:   http.MethodPut,
		url:      withDigest(session, d.Digest),
		header:   http.Header{"Content-Type": {"application/octet-stream"}},
		content:  io.NewSectionReader(content, 0, d.Size),
		scopes:   r.scopes(scopePush),
		attempts: 1,
	})
	if err != nil {
		return 0, r.fail(op, ref, err)
	}
	if resp.StatusCode != http.StatusCreated {
		return retryAfter(resp.Header.Get("Retry-After")), r.refusedForm(op, ref, UploadWhole, resp)
	}
	resp.Body.Close()
	if err := checkStored(resp, d.Digest); err != nil {
		return 0, r.fail(op, ref, err)
	}
	return 0, nil
}

// withDigest is the address that ends an upload session.
func withDigest(session *url.URL, d digest.Digest) *url.URL {
	u := *session
	query := u.Query()
	query.Set("digest", d.String())
	u.RawQuery = query.Encode()
	return &u
}

// refusedForm is refused for a request that carried a blob.
func (r *remote) refusedForm(op, reference string, form UploadForm, resp *http.Response) error {
	err := refusal(resp)
	switch resp.StatusCode {
	case http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusLengthRequired,
		http.StatusRequestEntityTooLarge, http.StatusRequestedRangeNotSatisfiable:
		err = fmt.Errorf("%w: %w", ErrUploadForm, err)
		r.endpoint.profile.refused(form)
	}
	return r.failStatus(op, reference, resp.StatusCode, err)
}

// abandon ends an upload session. The registry discards abandoned sessions in
// time; this only helps it, also after the caller's context has ended.
func (r *remote) abandon(ctx context.Context, session *url.URL, held bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	resp, err := r.do(ctx, call{method: http.MethodDelete, url: session, scopes: r.scopes(scopePush), attempts: 1, held: held})
	if err == nil {
		resp.Body.Close()
	}
}

// patience cancels a request that does not get on.
type patience struct {
	mu    sync.Mutex
	timer *time.Timer // nil once the head of the reply is there
}

func newPatience(d time.Duration, cancel context.CancelCauseFunc) *patience {
	return &patience{timer: time.AfterFunc(d, func() { cancel(ErrStalled) })}
}

func (p *patience) extend(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.timer != nil {
		p.timer.Reset(d)
	}
}

// end also keeps a body that is still being sent from beginning anew.
func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer.Stop()
	p.timer = nil
}

// sentBody is the body of a request. Every Read means that what was read
// before is on its way; after the last one the registry has work to do.
type sentBody struct {
	io.Reader
	patience *patience
	left     int64
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left > 0 {
		b.patience.extend(stallTimeout)
	} else {
		b.patience.extend(commitTimeout)
	}
	return n, err
}

func (b *sentBody) Close() error { return nil }
