// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
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
	timer   *time.Timer   // runs during Read only; nil before the first
	left    time.Duration // of this window
	got     int           // in this window
}

func (b *watchedBody) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		// net/http may still have bytes in its buffers.
		return 0, plainError(b.ctx, b.ctx.Err())
	}
	start := time.Now()
	if b.timer == nil {
		b.timer = time.AfterFunc(b.left, func() { b.cancel(ErrStalled) })
	} else {
		b.timer.Reset(b.left)
	}
	n, err := b.body.Read(p)
	b.timer.Stop()
	b.left -= time.Since(start)
	b.got += n
	if b.got >= minProgress {
		b.got, b.left = 0, stallTimeout
	}
	if err != nil && err != io.EOF {
		err = plainError(b.ctx, err)
	}
	return n, err
}

func (b *watchedBody) Close() error {
	err := b.body.Close()
	b.cancel(nil)
	b.release()
	return err
}
