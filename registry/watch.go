// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
	"sync"
	"time"
)

// watchedBody is the body of a reply that fails once it has spent
// stallTimeout waiting for the next minProgress bytes. Only time inside Read
// counts, so a slow caller is not mistaken for a slow server.
type watchedBody struct {
	ctx     context.Context // of the request, which ends the body
	cancel  context.CancelCauseFunc
	release func() // of the connection
	body    io.ReadCloser

	mu    sync.Mutex
	timer *time.Timer   // looks whether there was progress; nil: not running
	since time.Time     // of the Read under way; zero: none
	left  time.Duration // of this window
	got   int           // in this window
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		// net/http may still have bytes in its buffers.
		return 0, plainError(b.ctx, b.ctx.Err())
	}
	b.begin()
	n, err := b.body.Read(p)
	b.end(n)
	if err != nil && err != io.EOF {
		err = plainError(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = time.Now()
	if b.timer == nil {
		b.timer = time.AfterFunc(b.left, b.look)
	}
}

func (b *watchedBody) end(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left -= time.Since(b.since)
	b.since = time.Time{}
	b.got += n
	if b.got >= minProgress {
		b.got, b.left = 0, stallTimeout
	}
}

// look ends a stalled body, or looks again when it could be one. A timer that is
// set and stopped with every Read would cost more than many a Read.
func (b *watchedBody) look() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.timer = nil
	if b.since.IsZero() {
		return
	}
	left := b.left - time.Since(b.since)
	if left <= 0 {
		b.cancel(ErrStalled)
		return
	}
	b.timer = time.AfterFunc(left, b.look)
}

func (b *watchedBody) Close() error {
	err := b.body.Close()
	b.cancel(nil)
	b.mu.Lock()
	if b.timer != nil {
		b.timer.Stop()
	}
	b.mu.Unlock()
	b.release()
	return err
}
