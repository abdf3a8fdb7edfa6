// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"sync"
)

// parallel calls f for 0 to n-1, at most width at a time, in order of start.
// The first error cancels the rest and is returned when all have ended.
func parallel(ctx context.Context, n, width int, f func(ctx context.Context, i int) error) error {
	c := newCrew(ctx, n, f)
	c.resize(width)
	return c.wait()
}

// crew is what parallel runs, with a width that can change meanwhile.
type crew struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	n       int
	f       func(ctx context.Context, i int) error
	running sync.WaitGroup

	mu      sync.Mutex
	next    int // the first that nobody has taken
	width   int
	members int
}

func newCrew(ctx context.Context, n int, f func(ctx context.Context, i int) error) *crew {
	c := &crew{n: n, f: f}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// resize makes it at most width at a time. Calls that are under way are not
// ended. But for the first time it is called by these alone, since wait returns
// when there are none.
func (c *crew) resize(width int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.width = width
	for range min(width-c.members, c.n-c.next) {
		c.members++
		c.running.Go(c.work)
	}
}

func (c *crew) work() {
	for i, ok := c.take(); ok; i, ok = c.take() {
		if err := c.f(c.ctx, i); err != nil {
			c.cancel(err)
		}
	}
}

func (c *crew) take() (i int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil || c.next == c.n || c.members > c.width {
		c.members--
		return 0, false
	}
	c.next++
	return c.next - 1, true
}

// left is how many nobody has taken.
func (c *crew) left() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n - c.next
}

// wait returns when all calls have ended.
func (c *crew) wait() error {
	c.running.Wait()
	err := context.Cause(c.ctx)
	c.cancel(nil)
	return err
}
