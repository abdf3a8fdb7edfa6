// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestCrewChangesItsWidth: calls in order, two at a time, four after the second
// second, and one at the end.
func TestCrewChangesItsWidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 40
		start := time.Now()
		var now atomic.Int32
		var most [calls]int32
		var c *crew
		c = newCrew(t.Context(), calls, func(_ context.Context, i int) error {
			most[i] = now.Add(1)
			defer now.Add(-1)
			switch i {
			case 4:
				c.resize(4)
			case 20:
				c.resize(1)
			}
			time.Sleep(time.Second)
			return nil
		})
		c.resize(2)
		if err := c.wait(); err != nil {
			t.Error(err)
		}
		for i, n := range most {
			if want := map[bool]int32{i < 4: 2, i >= 4 && i < 24: 4, i >= 24: 1}[true]; n < 1 || n > want {
				t.Errorf("call %d was one of %d, want %d at most", i, n, want)
			}
		}
		if took := time.Since(start); took < 20*time.Second || took > 26*time.Second {
			t.Errorf("%d calls took %v", calls, took)
		}
	})
}

func TestCrewEndsWithTheFirstError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		var calls atomic.Int32
		err := parallel(t.Context(), 100, 3, func(ctx context.Context, i int) error {
			calls.Add(1)
			if i == 1 {
				return broken
			}
			<-ctx.Done()
			return ctx.Err()
		})
		if err != broken || calls.Load() > 3 {
			t.Errorf("%v after %d calls", err, calls.Load())
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(broken)
		for _, n := range []int{0, 1, 5} {
			if err := parallel(ctx, n, 2, func(context.Context, int) error { t.Error("called"); return nil }); err != broken {
				t.Errorf("%d calls that were not to be: %v", n, err)
			}
		}
		if err := parallel(t.Context(), 0, 2, nil); err != nil {
			t.Error(err)
		}
	})
}
