// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Create begins an upload in the one form with the digest last that every
// registry takes: POST, a single streaming PATCH without Content-Range, PUT.
// The PATCH starts with the first Write. A connection that does not take the next
// 256 KiB, or 2 MiB while it is fast, within 30 seconds ends it with [ErrStalled].
func (r *remote) Create(ctx context.Context, _ int64) (BlobWriter, error) {
	release, err := r.endpoint.writer(ctx)
	if err != nil {
		return nil, r.fail("create", "", err)
	}
	session, token, err := r.begin(ctx, "create", "", true)
	if err != nil {
		release()
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	return &remoteWriter{store: r, ctx: ctx, cancel: cancel, release: release, session: session, token: token, chunk: minChunk}, nil
}

// begin opens an upload session, in a slot of its own unless the caller has
// one. token is the Authorization it was opened with.
func (r *remote) begin(ctx context.Context, op, reference string, held bool) (session *url.URL, token string, err error) {
	r.written.Store(true)
	resp, err := r.do(ctx, call{
		method: http.MethodPost,
		url:    r.at("blobs", "uploads/"),
		scopes: r.scopes(scopePush),
		held:   held,
	})
	if err != nil {
		return nil, "", r.fail(op, reference, err)
	}
	if resp.StatusCode != http.StatusAccepted {
		return nil, "", r.refused(op, reference, resp)
	}
	resp.Body.Close()
	session, err = r.location(resp)
	if err != nil {
		return nil, "", r.fail(op, reference, err)
	}
	return session, resp.Request.Header.Get("Authorization"), nil
}

// location is where an upload goes on. Another origin would be handed the
// credential, or the content, by the word of the registry alone.
func (r *remote) location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" {
		return nil, fmt.Errorf("%w: reply without a usable Location", ErrInvalid)
	}
	if !sameOrigin(u, r.endpoint.base) || u.User != nil {
		return nil, fmt.Errorf("%w: upload sent to another origin, %q", ErrInvalid, clip(u.Host))
	}
	return u, nil
}

type remoteWriter struct {
	store   *remote
	ctx     context.Context // of Create, which governs the upload
	cancel  context.CancelCauseFunc
	release func() // of the connection, which all requests of the upload have
	session *url.URL
	token   string // Authorization of the POST: a streamed body cannot be sent twice
	written int64

	body   *feed // nil until the first Write
	chunk  int   // bytes of the next chunk
	result chan patchResult
	closed bool

	doubtful bool // the reply to the PATCH was not quite one
}

type patchResult struct {
	resp *http.Response
	err  error
}

func (w *remoteWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, w.store.fail("write", "", errWriterClosed)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if w.body == nil {
		w.start()
	}
	written := 0
	for written < len(p) {
		piece := p[written:min(len(p), written+w.chunk)]
		start := time.Now()
		timer := time.AfterFunc(stallTimeout, func() { w.cancel(ErrStalled) })
		n, err := w.body.Write(piece)
		timer.Stop()
		w.chunk = nextChunk(w.chunk, n, time.Since(start))
		written += n
		w.written += int64(n)
		if err != nil {
			return written, w.store.wrap("write", "", w.failure(err))
		}
	}
	return written, nil
}

// nextChunk is the most to send at once after n bytes that took so long. Whether
// a chunk moves shows only when it has gone, so those of a slow line are small;
// large ones spare both sides work, and a fast line soon shows that it is one.
func nextChunk(chunk, n int, took time.Duration) int {
	switch {
	case took > slowChunk:
		return minChunk
	case n == chunk && took < slowChunk/8:
		return min(2*chunk, maxChunk)
	default:
		return chunk
	}
}

// start sends the PATCH from a goroutine that ends with it; Commit and Close
// wait for that.
func (w *remoteWriter) start() {
	body := newFeed()
	w.body = body
	w.result = make(chan patchResult, 1)
	// A failure of the request must reach a Write that is waiting.
	stop := context.AfterFunc(w.ctx, func() { body.end(context.Cause(w.ctx)) })
	go func() {
		defer stop()
		resp, err := w.patch(body)
		sent := body.sent()
		body.end(errPatchEnded)
		if err == nil && !sent {
			// The connection may wait for a registry that reads no more, and
			// Write with it.
			timer := time.AfterFunc(stallTimeout, func() { w.cancel(ErrStalled) })
			resp.Body = io.NopCloser(bytes.NewReader(refusalBody(resp)))
			timer.Stop()
			w.cancel(errPatchEnded)
		}
		w.result <- patchResult{resp, err}
	}()
}

// errPatchEnded stands in Write until the reply that explains it is read.
var errPatchEnded = errors.New("registry ended the upload")

func (w *remoteWriter) patch(body io.ReadCloser) (*http.Response, error) {
	req, err := http.NewRequestWithContext(w.ctx, http.MethodPatch, w.session.String(), body)
	if err != nil {
		return nil, errors.New("upload session has no usable address")
	}
	req.ContentLength = -1
	req.Header.Set("Content-Type", "application/octet-stream")
	// A refusal then comes before the content has been sent.
	req.Header.Set("Expect", "100-continue")
	resp, err := w.store.endpoint.auth.resume(req, w.token)
	if err != nil {
		return nil, plainError(w.ctx, err)
	}
	return resp, nil
}

// failure finds out why the PATCH ended while there was more to write.
func (w *remoteWriter) failure(err error) error {
	w.closed = true
	result := <-w.result
	w.result = nil
	if result.err != nil {
		return result.err
	}
	if result.resp.StatusCode/100 == 2 {
		result.resp.Body.Close()
		return err
	}
	return w.store.refusedForm("write", "", UploadStreamed, result.resp)
}

func (w *remoteWriter) formRefused(err error) error {
	w.store.endpoint.profile.refused(UploadStreamed)
	return fmt.Errorf("%w: %w", ErrUploadForm, err)
}

func (w *remoteWriter) Commit(ctx context.Context, d digest.Digest) error {
	ref := d.String()
	if w.closed {
		return w.store.fail("commit", ref, errWriterClosed)
	}
	w.closed = true
	if err := checkDigest(d); err != nil {
		return w.store.fail("commit", "", err)
	}
	if w.body != nil {
		if err := w.finish(ctx); err != nil {
			return w.store.wrap("commit", ref, err)
		}
	}
	resp, err := w.store.do(ctx, call{
		method: http.MethodPut,
		url:    withDigest(w.session, d),
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body:   []byte{},
		scopes: w.store.scopes(scopePush),
		// Whether a commit that failed half-way happened cannot be known.
		attempts: 1,
		patience: commitTimeout,
		held:     true,
	})
	if err != nil {
		return w.store.fail("commit", ref, err)
	}
	if resp.StatusCode != http.StatusCreated {
		if w.doubtful && resp.StatusCode/100 == 4 {
			return w.store.failStatus("commit", ref, resp.StatusCode, w.formRefused(refusal(resp)))
		}
		return w.store.refused("commit", ref, resp)
	}
	resp.Body.Close()
	if err := checkStored(resp, d); err != nil {
		return w.store.fail("commit", ref, err)
	}
	w.session = nil
	w.cancel(nil)
	w.release()
	return nil
}

// finish ends the body of the PATCH and reads the reply.
func (w *remoteWriter) finish(ctx context.Context) error {
	w.body.finish()
	timer := time.AfterFunc(commitTimeout, func() { w.cancel(ErrStalled) })
	defer timer.Stop()
	stop := context.AfterFunc(ctx, func() { w.cancel(context.Cause(ctx)) })
	defer stop()
	result := <-w.result
	w.body, w.result = nil, nil
	if result.err != nil {
		return result.err
	}
	switch result.resp.StatusCode {
	case http.StatusAccepted, http.StatusNoContent:
	case http.StatusCreated:
		// ECR says so, also where it drops what was sent. The commit shows it.
		w.doubtful = true
	default:
		return w.store.refusedForm("write", "", UploadStreamed, result.resp)
	}
	result.resp.Body.Close()
	if err := checkReceived(result.resp.Header.Get("Range"), w.written); err != nil {
		return w.formRefused(err)
	}
	session, err := w.store.location(result.resp)
	if err != nil {
		return err
	}
	w.session = session
	return nil
}

// checkReceived compares the extent that the registry says it has, where it
// says so, with what was sent. An extent of 0-0 may mean none or one.
func checkReceived(extent string, written int64) error {
	from, last, ok := strings.Cut(strings.TrimPrefix(extent, "bytes="), "-")
	end, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || from != "0" || end == written-1 {
		return nil
	}
	return fmt.Errorf("%w: registry received %d of %d bytes", ErrInvalid, end+1, written)
}

func (w *remoteWriter) Close() error {
	defer w.release()
	w.closed = true
	if w.result != nil {
		w.cancel(context.Canceled)
		if result := <-w.result; result.resp != nil {
			result.resp.Body.Close()
		}
		w.result = nil
	}
	session := w.session
	w.session = nil
	w.cancel(nil)
	if session == nil {
		return nil
	}
	w.store.abandon(w.ctx, session, true)
	return nil
}
