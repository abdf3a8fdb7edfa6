// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"sync"
)

// listings are the listings of referrers that change at this moment, one change
// at a time each: ours would undo each other otherwise, under a tag always,
// with the API on registries that rewrite the listing without a lock. The zero
// value is ready.
type listings struct {
	mu    sync.Mutex
	locks map[string]*listingLock
}

type listingLock struct {
	turn  chan struct{} // holds the token of who changes the listing
	users int           // who changes it and who waits
}

// change runs f while no other change to the listing of that name is under way.
func (l *listings) change(ctx context.Context, name string, f func() error) error {
	l.mu.Lock()
	if l.locks == nil {
		l.locks = make(map[string]*listingLock)
	}
	lock := l.locks[name]
	if lock == nil {
		lock = &listingLock{turn: make(chan struct{}, 1)}
		l.locks[name] = lock
	}
	lock.users++
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if lock.users--; lock.users == 0 {
			delete(l.locks, name)
		}
	}()
	select {
	case lock.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-lock.turn }()
	return f()
}
