// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"sync"
)

// budget hands out the memory of a Client. Two kinds of memory are told apart
// so that operations cannot wait for each other in a circle: what is held
// for long (indexes, caches) is given at once or refused, and only buffers
// that are returned when their request ends are waited for. So that models can be
// opened while others are pulled, buffers leave a quarter of the limit to what is
// held.
type budget struct {
	mu      sync.Mutex
	limit   int64
	held    int64 // by indexes and caches
	lent    int64 // as buffers
	changed chan struct{}
}

func newBudget(limit int64) *budget {
	return &budget{limit: limit, changed: make(chan struct{})}
}

// hold takes n bytes for long. It leaves at least half of the limit to buffers.
func (b *budget) hold(n int64, what string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if free := b.unheld(); n > free {
		return fmt.Errorf("%w: %s needs %d bytes of MemoryLimit, which is %d and has %d left for indexes and caches", ErrLimit, what, n, b.limit, free)
	}
	b.held += n
	return nil
}

// holdable is what hold would give now.
func (b *budget) holdable() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.unheld()
}

func (b *budget) unheld() int64 {
	return max(0, min(b.limit/2-b.held, b.limit-b.held-b.lent))
}

func (b *budget) release(n int64) { b.give(&b.held, n) }

// borrow waits for n bytes of buffers. What can never be had is an error.
func (b *budget) borrow(ctx context.Context, n int64) error {
	for {
		b.mu.Lock()
		if n > b.limit-b.held {
			defer b.mu.Unlock()
			return fmt.Errorf("%w: buffers of %d bytes do not fit in a MemoryLimit of %d with %d in use", ErrLimit, n, b.limit, b.held)
		}
		// One that is larger than what buffers may have together gets it alone.
		if b.lent == 0 || n <= b.unlent() {
			b.lent += n
			b.mu.Unlock()
			return nil
		}
		changed := b.changed
		b.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lendable is the most that borrow can give while so much is held.
func (b *budget) lendable() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit - b.held
}

// buffers is the most that buffers may have together while so much is held.
func (b *budget) buffers() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shared()
}

func (b *budget) shared() int64 { return b.limit - max(b.held, b.limit/4) }

// tryBorrow takes n bytes of buffers if they are free now.
func (b *budget) tryBorrow(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.unlent() {
		return false
	}
	b.lent += n
	return true
}

func (b *budget) unlent() int64 {
	return b.shared() - b.lent
}

func (b *budget) repay(n int64) { b.give(&b.lent, n) }

func (b *budget) give(from *int64, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *from -= n; *from < 0 {
		panic("modelsec: memory returned twice")
	}
	close(b.changed)
	b.changed = make(chan struct{})
}
