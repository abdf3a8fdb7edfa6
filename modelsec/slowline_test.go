// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/fstest"

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
