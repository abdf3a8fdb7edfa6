// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestOneListingChangesOnceAtATimeAndOthersMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l listings
		var changes sync.WaitGroup
		busy := map[string]*bool{"a": new(bool), "b": new(bool)}
		start := time.Now()
		for range 5 {
			for _, name := range []string{"a", "b"} {
				changes.Go(func() {
					l.change(t.Context(), name, func() error {
						if *busy[name] {
							t.Errorf("two changes of %s at a time", name)
						}
						*busy[name] = true
						time.Sleep(time.Second)
						*busy[name] = false
						return nil
					})
				})
			}
		}
		time.Sleep(time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if err := l.change(ctx, "a", func() error { t.Error("ran after its context"); return nil }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting too long: %v", err)
		}
		changes.Wait()
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("two listings changed in turn: %v", took)
		}
		if len(l.locks) != 0 {
			t.Errorf("%d locks are kept", len(l.locks))
		}
	})
}
