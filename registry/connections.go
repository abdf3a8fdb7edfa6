// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"
)

// slot waits until there may be one more request, and returns what ends it.
func (e *endpoint) slot(ctx context.Context) (release func(), err error) {
	return take(ctx, e.slots)
}

// writer waits until there may be one more BlobWriter, and returns what ends
// it. Until then its requests have a slot.
func (e *endpoint) writer(ctx context.Context) (release func(), err error) {
	done, err := take(ctx, e.writers)
	if err != nil || cap(e.slots) <= 1 {
		return done, err
	}
	slot, err := take(ctx, e.slots)
	if err != nil {
		done()
		return nil, err
	}
	return func() { slot(); done() }, nil
}

func take(ctx context.Context, room chan struct{}) (release func(), err error) {
	if room == nil {
		return func() {}, ctx.Err()
	}
	select {
	case room <- struct{}{}:
		return sync.OnceFunc(func() { <-room }), nil
	case <-ctx.Done():
		return nil, plainError(ctx, ctx.Err())
	}
}
