// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// Hooks let the application watch. Both may be called concurrently by
// different operations of one Client, never by one operation.
type Hooks struct {
	// Progress is called a few times a second while bytes move, and once at
	// the end with Final set. Nil: nothing is reported.
	Progress func(Progress)

	// Audit receives every decision and delivery. An operation does not
	// proceed past an event that Audit fails: no key is unwrapped and no byte
	// delivered that was not recorded first. Nil: nothing is recorded.
	Audit func(context.Context, Event) error
}

// Progress counts content bytes of one operation.
type Progress struct {
	Op, Ref     string
	File        string // A file that is moving now; empty when many are.
	Done, Total int64  // Bytes.
	Found       int64  // Of Done: what a resumed pull, a push or a copy found in place.
	Final       bool
}

// Event is one entry of the audit record. An operation that uses keys or
// delivers bytes emits an intent before and an outcome after, with the same
// ID; an intent without an outcome means that the process ended in between.
// Events are delivered at least once.
type Event struct {
	ID      string // Random; equal for the intent and outcome of one operation.
	Time    time.Time
	Op, Ref string
	Phase   string // "decision", "intent" or "outcome"
	Digest  digest.Digest
	Allowed bool
	Reason  string // Why not, or what was done where it matters to an auditor.
	File    string // Set where the operation concerns one file.
	KeyID   string // The key id of the grant entry that opened the artifact.
	Host    string
	Bytes   int64 // Content bytes delivered or sent, without what a push or copy found in place.
	Report  *provenance.Report
}

// Phases of an [Event].
const (
	phaseDecision = "decision"
	phaseIntent   = "intent"
	phaseOutcome  = "outcome"
)

const progressInterval = 200 * time.Millisecond

// operation is one call on a Client: what its errors, events and progress
// reports have in common.
type operation struct {
	c       *Client
	op, ref string
	id      string
	digest  digest.Digest
	host    string
	total   int64
	done    atomic.Int64
	found   atomic.Int64 // of these, what was in place
	file    atomic.Pointer[string]
}

func (c *Client) begin(op, ref string) *operation {
	id := make([]byte, 8)
	rand.Read(id)
	return &operation{c: c, op: op, ref: ref, id: hex.EncodeToString(id)}
}

// fail says which operation an error ended. Code below an operation makes an
// *Error without one where it knows the file or segment.
func (o *operation) fail(err error) error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		if e.Op != "" {
			return e
		}
		named := *e
		named.Op, named.Ref = o.op, o.ref
		return &named
	}
	return &Error{Op: o.op, Ref: o.ref, Segment: -1, Err: err}
}

// sent is how many bytes the operation moved.
func (o *operation) sent() int64 { return o.done.Load() - o.found.Load() }

// audit records one event.
func (o *operation) audit(ctx context.Context, e Event) error {
	if o.c.Hooks.Audit == nil {
		return nil
	}
	e.ID, e.Time, e.Op, e.Ref = o.id, o.c.now(), o.op, o.ref
	if e.Digest == "" {
		e.Digest = o.digest
	}
	if e.Host == "" {
		e.Host = o.host
	}
	if err := o.c.Hooks.Audit(ctx, e); err != nil {
		return fmt.Errorf("%w: %w", ErrAudit, err)
	}
	return nil
}

// outcome records how an operation ended. It is recorded even when ctx is
// done, because what was delivered until then was delivered.
func (o *operation) outcome(ctx context.Context, e Event, err error) error {
	e.Phase, e.Allowed = phaseOutcome, err == nil
	if err != nil {
		e.Reason = err.Error()
	}
	if auditErr := o.audit(context.WithoutCancel(ctx), e); err == nil {
		return auditErr
	}
	return err
}

// watch samples the counters until the returned function is called.
func (o *operation) watch(total int64) (stop func()) {
	o.total = total
	if o.c.Hooks.Progress == nil {
		return func() {}
	}
	end := make(chan struct{})
	var sampler sync.WaitGroup
	sampler.Go(func() {
		t := time.NewTicker(progressInterval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				o.c.Hooks.Progress(o.sample(false))
			case <-end:
				o.c.Hooks.Progress(o.sample(true))
				return
			}
		}
	})
	return func() {
		close(end)
		sampler.Wait()
	}
}

func (o *operation) sample(final bool) Progress {
	// What is found is done first, so it is loaded before.
	found := o.found.Load()
	p := Progress{Op: o.op, Ref: o.ref, Done: o.done.Load(), Found: found, Total: o.total, Final: final}
	if f := o.file.Load(); f != nil && !final {
		p.File = *f
	}
	return p
}
