// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
)

// TestBudgetNeverGivesMoreThanItsLimit takes and returns memory of both kinds at
// random, in sixteen goroutines, and looks at the sum after every step.
func TestBudgetNeverGivesMoreThanItsLimit(t *testing.T) {
	const limit = 1000
	b := newBudget(limit)
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range 5000 {
				n := 1 + rand.Int64N(limit/2)
				var giveBack func(int64)
				switch rand.IntN(3) {
				case 0:
					if b.hold(n, "an index") != nil {
						continue
					}
					giveBack = b.release
				case 1:
					if err := b.borrow(t.Context(), n); err != nil {
						continue
					}
					giveBack = b.repay
				default:
					if !b.tryBorrow(n) {
						continue
					}
					giveBack = b.repay
				}
				b.mu.Lock()
				if b.held+b.lent > limit || b.held > limit/2 {
					t.Errorf("%d bytes are held and %d lent of %d", b.held, b.lent, limit)
				}
				b.mu.Unlock()
				giveBack(n)
			}
		})
	}
	all.Wait()
	if b.held != 0 || b.lent != 0 {
		t.Errorf("%d and %d bytes were not returned", b.held, b.lent)
	}
}

// TestBuffersLeaveRoomForIndexes: however much buffers take, an index of a
// quarter of the limit is not refused; one that is larger is, and buffers that no
// share would suffice for are given alone.
func TestBuffersLeaveRoomForIndexes(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := newBudget(1000)
	for b.tryBorrow(10) {
	}
	cancel()
	if err := b.borrow(ctx, 10); !errors.Is(err, context.Canceled) {
		t.Errorf("borrow did not wait: %v", err)
	}
	if err := b.hold(251, "an index"); !errors.Is(err, ErrLimit) {
		t.Errorf("an index of more than is left: %v", err)
	}
	if err := b.hold(250, "an index"); err != nil {
		t.Error(err)
	}
	b.release(250)
	b.repay(b.lent)
	if err := b.borrow(t.Context(), 1000); err != nil {
		t.Error(err)
	}
	if err := b.hold(1, "an index"); !errors.Is(err, ErrLimit) {
		t.Errorf("an index where nothing is left: %v", err)
	}
}
