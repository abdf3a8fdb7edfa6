// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
)

// TestSegmentsOfASlowLineDoNotWaitForAGroup: where sixteen segments take seconds,
// what came is delivered all the same. Progress shows it, and a process that
// dies has not waited for nothing.
func TestSegmentsOfASlowLineDoNotWaitForAGroup(t *testing.T) {
	const size, rate, bound = 12 << 20, 6 << 20, 5 << 20
	p, server := newParty(t), ociserver.New()
	src := fstest.MapFS{"model.safetensors": {Data: make([]byte, size)}}
	push(t, p.client(remote()), over(t, &line{}, server)+"/team/slow:v3", src, &modelsec.PushOptions{Signer: p.signer})

	slow := &line{rate: rate}
	var looks atomic.Int32
	c := p.client(remote())
	c.Hooks.Progress = func(at modelsec.Progress) {
		slow.mu.Lock()
		waiting := slow.sent - at.Done
		slow.mu.Unlock()
		if at.Done < at.Total && waiting > bound {
			t.Errorf("%d bytes were sent and %d delivered", slow.sent, at.Done)
		}
		looks.Add(1)
	}
	if _, err := c.Pull(t.Context(), over(t, slow, server)+"/team/slow:v3", filepath.Join(t.TempDir(), "model"), p.policy(), nil); err != nil {
		t.Fatal(err)
	}
	if looks.Load() < 5 {
		t.Errorf("there were %d looks at a pull of %d s", looks.Load(), size/rate)
	}
}

// TestSlowLinesGetMoreStreams: a fetch of large layers begins with few requests at
// a time, and has up to sixteen where each is answered late. Of small ones it has
// as many at once.
func TestSlowLinesGetMoreStreams(t *testing.T) {
	const layers, late = 48, 600 * time.Millisecond
	for name, size := range map[string]int{"Large": 35 * segment, "Small": segment} {
		t.Run(name, func(t *testing.T) {
			sizes := make(map[string]int)
			for i := range layers {
				sizes[fmt.Sprintf("model-%02d.safetensors", i)] = size
			}
			p := newParty(t)
			r := newRig(t, p, source(sizes), p.profiles()["plain"]())
			var now, most atomic.Int32
			r.fault = func(*http.Request) *ociserver.Fault {
				n := now.Add(1)
				time.AfterFunc(late*3/4, func() { now.Add(-1) })
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				return &ociserver.Fault{Delay: late}
			}
			r.pull(t)
			if n := most.Load(); n < 12 || n > 16 {
				t.Errorf("there were %d requests at a time, want 12 to 16", n)
			}
		})
	}
}

// TestStalledLinesDoNotStopTheOthers: when every stream that a fetch has begun with
// waits for a line that brings nothing, others go on.
func TestStalledLinesDoNotStopTheOthers(t *testing.T) {
	const layers, stalled, others = 48, 3, 20
	sizes := make(map[string]int)
	for i := range layers {
		sizes[fmt.Sprintf("model-%02d.safetensors", i)] = 35 * segment
	}
	p := newParty(t)
	r := newRig(t, p, source(sizes), p.profiles()["plain"]())
	var asked atomic.Int32
	enough := make(chan struct{})
	r.fault = func(*http.Request) *ociserver.Fault {
		switch n := asked.Add(1); {
		case n <= 1 || n > 1+stalled+others:
		case n == 1+stalled+others:
			close(enough)
		case n <= 1+stalled:
			select {
			case <-enough:
			case <-time.After(20 * time.Second):
				t.Errorf("%d requests were made while %d were not answered", asked.Load()-n, stalled)
			}
		}
		return nil
	}
	c := p.client(remote())
	c.Workers = stalled - 1
	if _, err := c.Pull(t.Context(), r.ref, filepath.Join(t.TempDir(), "model"), p.policy(), nil); err != nil {
		t.Fatal(err)
	}
}
