// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"slices"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// maxGroup is how many segments are hashed together at most.
const maxGroup = 16

// arrival is a segment that was read.
type arrival struct {
	run    *run
	k      int64
	stored []byte
	sum    [digest.Size]byte
}

// buffers are the memory of a fetch, each for one stored segment. They belong to
// it until it ends.
type buffers struct {
	borrowed int64    // bytes of the client's budget
	room     int      // buffers that may be made
	extra    int      // buffers that may be borrowed beside those of the streams
	free     [][]byte // of one stored segment
	plain    [][]byte // of one decrypted segment
}

// groupSize is how many segments are hashed together: as many as the processor
// is fastest with. Where segments are large, memory for more streams is worth
// more.
func (t *content) groupSize() int {
	if t.index.SegmentSize > index.LargeSegmentSize {
		return 1
	}
	return min(maxGroup, t.lanes.Width())
}

// borrow waits for the memory of the first stream: a buffer to fill, and one to
// decrypt into.
func (f *fetcher) borrow(ctx context.Context) error {
	size := f.maxStored()
	if f.openers != nil {
		size += f.index.SegmentSize
	}
	if err := f.c.budget.borrow(ctx, size); err != nil {
		return err
	}
	f.buffers = buffers{borrowed: size, room: 1}
	if n := f.groupSize(); n > 2 {
		// While a group is hashed the next one gathers.
		f.buffers.extra = n * cap(f.c.lanes)
	} else {
		f.buffers.extra = n - 1
	}
	return nil
}

// tryBorrow takes the memory of one more stream if it is free, and of one more
// segment that waits for others.
func (f *fetcher) tryBorrow() bool {
	n := min(2, f.groupSize())
	size := int64(n) * f.maxStored()
	if f.openers != nil {
		size += f.index.SegmentSize
	}
	if !f.c.budget.tryBorrow(size) {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buffers.borrowed += size
	f.buffers.room += n
	return true
}

// buffer returns memory for one stored segment. Who asks for it first does what
// work there is, and whatever waits while there is no memory. Where the fetch
// has ended, that is context.Canceled: the cause says nothing about a source.
func (f *fetcher) buffer(ctx context.Context) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.work(ctx, false) {
	}
	for f.err == nil {
		if b := f.take(); b != nil {
			return b, nil
		}
		if !f.work(ctx, true) {
			f.changed.Wait()
		}
	}
	return nil, context.Canceled
}

func (f *fetcher) take() []byte {
	m := &f.buffers
	size := f.maxStored()
	switch n := len(m.free); {
	case n > 0:
		b := m.free[n-1]
		m.free = m.free[:n-1]
		return b
	case m.room > 0:
		m.room--
	case m.extra > 0 && f.c.budget.tryBorrow(size):
		m.extra--
		m.borrowed += size
	default:
		return nil
	}
	return make([]byte, size)
}

// discard gives back a buffer.
func (f *fetcher) discard(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buffers.free = append(f.buffers.free, b[:cap(b)])
	f.changed.Broadcast()
}

// arrive hands on a segment, and reports whether there is a point in reading on.
func (f *fetcher) arrive(a arrival) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a.run.pending++
	f.group = append(f.group, a)
	if len(f.group) >= f.groupSize() {
		f.changed.Broadcast()
	}
	return a.run.err == nil || curable(a.run.err)
}

// work does one piece of what waits, with the lock released meanwhile, and
// reports whether there was any. A group that is not full is hashed only where
// rest says that it will not be filled.
func (f *fetcher) work(ctx context.Context, rest bool) bool {
	size := f.groupSize()
	switch {
	case f.err != nil:
		return false
	case len(f.group) >= size || rest && len(f.hashed) == 0 && len(f.group) > 0:
		n := min(size, len(f.group))
		group := slices.Clone(f.group[:n])
		f.group = append(f.group[:0], f.group[n:]...)
		f.mu.Unlock()
		f.hash(ctx, group)
		f.mu.Lock()
	case len(f.hashed) > 0:
		a := f.hashed[0]
		f.hashed = f.hashed[1:]
		f.mu.Unlock()
		f.hand(ctx, a)
		f.mu.Lock()
	default:
		return false
	}
	return true
}

// hash computes the digests of a group.
func (f *fetcher) hash(ctx context.Context, group []arrival) {
	var parts [maxGroup][]byte
	var sums [maxGroup][digest.Size]byte
	for i, a := range group {
		parts[i] = a.stored
	}
	if err := f.c.lane(ctx, func() error {
		return f.lanes.Sum(sums[:len(group)], parts[:len(group)])
	}); err != nil {
		f.fail(err)
		f.cancel()
		return
	}
	for i := range group {
		group[i].sum = sums[i]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hashed = append(f.hashed, group...)
	f.changed.Broadcast()
}

// hand verifies a segment by its digest, decrypts and delivers it.
func (f *fetcher) hand(ctx context.Context, a arrival) {
	plain := f.plain()
	err := f.pass(ctx, a, plain)
	if err != nil {
		err = f.from(a.run.job, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	a.run.pending--
	if err != nil {
		a.run.fail([]int64{a.k}, err)
	}
	f.buffers.free = append(f.buffers.free, a.stored[:cap(a.stored)])
	f.buffers.keep(plain)
	f.changed.Broadcast()
}

func (f *fetcher) pass(ctx context.Context, a arrival, plain []byte) error {
	var content []byte
	if err := f.c.lane(ctx, func() (err error) {
		content, err = f.segment(a.run.layer, a.k, a.stored, a.sum, plain)
		return err
	}); err != nil {
		return err
	}
	return f.deliver(a.run.layer, a.k, content)
}

// salvage delivers what had been read when the fetch failed, so that the next
// one need not ask for it again. All streams have ended.
func (f *fetcher) salvage(ctx context.Context) {
	for len(f.group) > 0 {
		n := min(f.groupSize(), len(f.group))
		group := f.group[:n]
		f.group = f.group[n:]
		f.hash(ctx, group)
	}
	plain := f.plain()
	for _, a := range f.hashed {
		// Lanes that are in doubt vouch for nothing.
		if f.lanes.Err() != nil {
			return
		}
		if err := f.pass(ctx, a, plain); err != nil && !curable(err) {
			return
		}
	}
}

// plain returns memory to decrypt into; nil in the plain profile.
func (f *fetcher) plain() []byte {
	if f.openers == nil {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.buffers.plain); n > 0 {
		b := f.buffers.plain[n-1]
		f.buffers.plain = f.buffers.plain[:n-1]
		return b
	}
	return make([]byte, f.index.SegmentSize)
}

func (f *fetcher) discardPlain(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buffers.keep(b)
}

// keep takes back memory that was decrypted into.
func (m *buffers) keep(plain []byte) {
	if plain != nil {
		m.plain = append(m.plain, plain)
	}
}
