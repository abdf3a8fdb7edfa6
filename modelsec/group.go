// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"slices"
	"time"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// maxGroup is how many segments are hashed together at most.
const maxGroup = 16

// maxGather is how long the segments of a group wait for the others. A line that
// takes longer leaves the processor time for groups that are not full, and
// what waits is lost when the process dies.
const maxGather = 100 * time.Millisecond

// arrival is a segment that was read.
type arrival struct {
	run    *run
	k      int64
	stored []byte
	sum    [digest.Size]byte
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

// arrive hands on a segment and how its line did, and reports whether there is a
// point in reading on.
func (f *fetcher) arrive(ctx context.Context, a arrival, line pace) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.widen(ctx, line)
	a.run.pending++
	if len(f.group) == 0 {
		f.since = time.Now()
	}
	f.group = append(f.group, a)
	if len(f.group) >= f.groupSize() {
		f.changed.Broadcast()
	}
	return a.run.err == nil || curable(a.run.err)
}

// work does one piece of what waits, with the lock released meanwhile, and
// reports whether there was any. A group that is not full is hashed only where
// rest says that it is not to wait for more.
func (f *fetcher) work(ctx context.Context, rest bool) bool {
	size := f.groupSize()
	switch {
	case f.err != nil:
		return false
	case len(f.group) >= size || rest && len(f.hashed) == 0 && len(f.group) > 0:
		n := min(size, len(f.group))
		group := slices.Clone(f.group[:n])
		f.group, f.since = append(f.group[:0], f.group[n:]...), time.Now()
		f.working++
		f.mu.Unlock()
		f.hash(ctx, group)
		f.mu.Lock()
		f.working--
	case len(f.hashed) > 0:
		a := f.hashed[0]
		f.hashed = f.hashed[1:]
		f.working++
		f.mu.Unlock()
		f.hand(ctx, a)
		f.mu.Lock()
		f.working--
	default:
		return false
	}
	return true
}

// gather hashes and delivers what has waited for maxGather, whatever the lines of
// the streams do meanwhile, and looks at these, until the fetch has ended.
func (f *fetcher) gather(ctx context.Context, ended <-chan struct{}) {
	t := time.NewTicker(maxGather)
	defer t.Stop()
	for {
		select {
		case <-ended:
			return
		case <-t.C:
			f.mu.Lock()
			for f.work(ctx, time.Since(f.since) > maxGather) {
			}
			f.stalled(ctx)
			f.mu.Unlock()
		}
	}
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
		for _, a := range group {
			f.pool.Put(a.stored)
		}
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
	f.pool.Put(plain)
	f.pool.Put(a.stored)
	f.mu.Lock()
	a.run.pending--
	if err != nil {
		a.run.fail([]int64{a.k}, err)
	}
	f.room++
	over := a.run.ended && a.run.pending == 0
	f.changed.Broadcast()
	f.mu.Unlock()
	if over {
		f.done(a.run)
	}
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
	defer f.pool.Put(plain)
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
