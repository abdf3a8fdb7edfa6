// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"sync"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// LoadTensors puts tensors, or slices of them, into the memory that the sink
// gives for each. Nil wants all. Every segment is fetched, verified and
// decrypted once, however many tensors share it, in any order; bytes reach the
// caller's memory only after their segment was verified. Nothing is written to
// a disk. Besides the caller's memory a load needs buffers within the client's
// MemoryLimit. What does not fit in memory together is loaded in batches.
//
// After an error nothing that the call delivered should be used. Memory that
// Done did not receive is zero then.
//
// Errors: those of a read; ErrConfig where a tensor is not of this model or the
// sink gives memory of another size; what Alloc and Done return.
func (m *Model) LoadTensors(ctx context.Context, want []Tensor, s TensorSink) error {
	op := m.begin("load")
	ctx, release, err := m.use(ctx)
	if err != nil {
		return op.fail(err)
	}
	defer release()
	if s.Alloc == nil {
		return op.fail(fmt.Errorf("%w: a TensorSink without Alloc", ErrConfig))
	}
	p, err := m.planTensors(ctx, want)
	if err != nil {
		return op.fail(err)
	}
	l := &tensorLoad{tensorPlan: p, m: m, op: op, sink: s}
	// A panic of the sink must not leave memory that is half filled either.
	complete := false
	defer func() {
		if !complete {
			l.wipe()
		}
	}()
	reason := fmt.Sprintf("load %d tensors into memory", len(p.tensors))
	if err = op.audit(ctx, Event{Phase: phaseIntent, Allowed: true, Reason: reason}); err == nil {
		err = l.run(ctx)
		err = op.outcome(ctx, Event{Bytes: op.done.Load(), Reason: reason}, err)
	}
	if l.panicked != nil {
		panic(l.panicked)
	}
	complete = err == nil
	return op.fail(err)
}

// tensorLoad is one LoadTensors.
type tensorLoad struct {
	*tensorPlan
	m    *Model
	op   *operation
	sink TensorSink

	mu       sync.Mutex
	failed   error // of the sink, the first
	panicked any   // with this
}

// sinkFailed ends a fetch. It does not unwrap to what the sink returned, which
// the fetch might take for a reason to ask again.
type sinkFailed struct{ error }

func (l *tensorLoad) run(ctx context.Context) error {
	if err := l.allocate(); err != nil {
		return err
	}
	defer l.op.watch(l.size)()
	err := l.doneEmpty()
	if err == nil {
		err = l.m.content.fetch(ctx, l.wanted, l.deliver)
	}
	if l.failed != nil {
		return l.failed
	}
	if err != nil {
		return err
	}
	for _, t := range l.tensors {
		if n := t.left.Load(); n != 0 {
			return l.about(t, fmt.Errorf("%d bytes were not delivered", n))
		}
	}
	return nil
}

func (l *tensorLoad) allocate() error {
	for _, t := range l.tensors {
		b, err := l.sink.Alloc(t.Tensor)
		if err != nil {
			return l.about(t, err)
		}
		t.buf = b
		if int64(len(b)) != t.Size {
			return l.about(t, fmt.Errorf("%w: memory of %d bytes for %d", ErrConfig, len(b), t.Size))
		}
	}
	return nil
}

// about names the tensor in an error.
func (l *tensorLoad) about(t *plannedTensor, err error) error {
	return &Error{File: t.File, Segment: -1, Err: fmt.Errorf("tensor %q: %w", tensor.Clip(t.Name), err)}
}

// deliver copies what a segment has of the tensors.
func (l *tensorLoad) deliver(layer int, k int64, content []byte) error {
	start, length := l.m.content.index.Geometry(layer).Range(k)
	for _, piece := range l.m.content.overlap(layer, start, length) {
		low, high := piece.FileOffset, piece.FileOffset+piece.Length
		from := content[piece.LayerOffset-start:]
		for t := range l.overlapping(piece.File, low, high) {
			n := int64(0)
			for run := range t.runs(low, high) {
				n += int64(copy(t.buf[run.At:], from[run.Offset-low:][:run.Length]))
			}
			if n == 0 {
				continue
			}
			l.op.done.Add(n)
			if t.left.Add(-n) > 0 {
				continue
			}
			if err := l.done(t); err != nil {
				return err
			}
		}
	}
	return nil
}

// doneEmpty hands over the tensors that no segment completes.
func (l *tensorLoad) doneEmpty() error {
	for _, t := range l.tensors {
		if t.Size > 0 {
			continue
		}
		if err := l.done(t); err != nil {
			return err
		}
	}
	return nil
}

// done hands a tensor over. A panic of the sink is carried to the goroutine
// that called LoadTensors.
func (l *tensorLoad) done(t *plannedTensor) (err error) {
	if l.sink.Done == nil {
		return nil
	}
	t.given.Store(true)
	defer func() {
		if v := recover(); v != nil {
			err = l.fail(fmt.Errorf("the sink panicked"), v)
		}
	}()
	if err := l.sink.Done(t.Tensor, t.buf); err != nil {
		return l.fail(l.about(t, err), nil)
	}
	return nil
}

func (l *tensorLoad) fail(err error, panicked any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed == nil {
		l.failed, l.panicked = err, panicked
	}
	return sinkFailed{err}
}

// wipe leaves nothing half done. K45.
func (l *tensorLoad) wipe() {
	for _, t := range l.tensors {
		if !t.given.Load() {
			clear(t.buf)
		}
	}
}
