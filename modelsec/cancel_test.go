// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// TestPullEndsWithItsContext cancels at every operation on the registry, and
// while a body has stalled. The call returns at once and nothing is visible.
func TestPullEndsWithItsContext(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, large(), options())
			for stage, more := int64(1), true; more; stage++ {
				synctest.Test(t, func(t *testing.T) { more = pullCancelledAt(t, p, memory, stage) })
			}
		})
	}
	t.Run("Stalled", func(t *testing.T) {
		eachRig(t, 3, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var at time.Time
			r.fault = func(*http.Request) *ociserver.Fault {
				time.AfterFunc(100*time.Millisecond, func() {
					cancel()
				})
				return &ociserver.Fault{Trickle: time.Second}
			}
			base := t.TempDir()
			at = time.Now()
			_, err := r.p.client(remote()).Pull(ctx, r.ref, filepath.Join(base, "model"), r.p.policy(), nil)
			refused(t, err, context.Canceled)
			if took := time.Since(at); took > 5*time.Second {
				t.Errorf("returned after %v", took)
			}
			nothingIn(t, base)
		})
	})
}

// TestOneClientServesManyPulls: concurrent pulls share lanes, memory and a
// registry that breaks now and then.
func TestOneClientServesManyPulls(t *testing.T) {
	eachRig(t, 20, func(t *testing.T, r *rig) {
		var n atomic.Int64
		r.fault = func(*http.Request) *ociserver.Fault {
			switch n.Add(1) % 4 {
			case 0:
				return &ociserver.Fault{Cut: true, CutAfter: 100_000}
			case 1:
				return &ociserver.Fault{Flip: []int64{200_000}}
			}
			return nil
		}
		c := r.p.client(remote())
		errs := make(chan error)
		base := t.TempDir()
		for i := range 6 {
			go func() {
				dir := filepath.Join(base, fmt.Sprint(i))
				_, err := c.Pull(t.Context(), r.ref, dir, r.p.policy(), nil)
				errs <- err
			}()
		}
		for range 6 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		for i := range 6 {
			sameFiles(t, filepath.Join(base, fmt.Sprint(i)), r.src)
		}
		if held, lent := c.Held(); held != 0 || lent != 0 {
			t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
		}
		entries := must(os.ReadDir(base))
		if len(entries) != 6 {
			t.Errorf("%d entries are left", len(entries))
		}
	})
}

// pullCancelledAt cancels at one operation on the registry, and reports whether
// there were as many. Nothing is waited for after that: in a synctest bubble time
// stands still.
func pullCancelledAt(t *testing.T, p *party, memory registry.Opener, stage int64) bool {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	blocking, cancelled := cancelAt(memory, stage, cancel)
	base := t.TempDir()
	_, err := p.client(blocking).Pull(ctx, tagged, filepath.Join(base, "model"), p.policy(), nil)
	if cancelled.Load() == nil {
		if err != nil {
			t.Error(err)
		}
		return false
	}
	if took := time.Since(*cancelled.Load()); took > 0 {
		t.Errorf("stage %d: returned %v after it was cancelled", stage, took)
	}
	refused(t, err, context.Canceled)
	absent(t, filepath.Join(base, "model"))
	return true
}

// cancelAt calls cancel at one operation on the registry, which then does not
// happen, and notes when.
func cancelAt(memory registry.Opener, stage int64, cancel func()) (*evil, *atomic.Pointer[time.Time]) {
	var seen atomic.Int64
	at := new(atomic.Pointer[time.Time])
	return &evil{Opener: memory, before: func(ctx context.Context, _, _ string) error {
		if seen.Add(1) != stage {
			return nil
		}
		now := time.Now()
		at.Store(&now)
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}}, at
}
