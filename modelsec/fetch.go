// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
)

// Bounds of one request in bytes. Registries and object stores are fastest
// with ranges of some tens of MiB; smaller ones only spread few bytes over
// many connections.
const (
	minRange = 4 << 20
	maxRange = 32 << 20
)

// sink takes the content of one verified segment. It is called concurrently;
// content is only valid during the call.
type sink func(layer int, k int64, content []byte) error

// job is what one request fetches: segments of one layer, in order.
type job struct {
	layer   int
	wanted  []int64
	attempt int
	moved   int64   // what the fetch had delivered when the job last failed
	source  *source // who is asked; nil while queued
	whole   bool    // by reading the layer from its beginning
}

// fetcher is one fetch: a queue of jobs and the streams that work it off. What
// the streams have read waits until there is a group of segments, as many as
// the processor hashes at a time, from whichever jobs; then it waits for
// somebody to decrypt and deliver it. Streams do all of this themselves, before
// they read on, so that nothing is read that nobody has time for.
type fetcher struct {
	*content
	note    sink // nil: not wanted
	deliver sink

	mu      sync.Mutex
	changed *sync.Cond
	queue   []job
	busy    int
	width   int   // streams that may be busy: fewer where a line breaks before a segment is through
	moved   int64 // segments delivered
	group   []arrival
	hashed  []arrival
	buffers buffers
	err     error
	cancel  context.CancelFunc
}

// run is a job that a stream works on.
type run struct {
	job
	pending int     // segments that were read and not judged
	left    []int64 // segments that were not delivered
	err     error   // why not
}

// fail notes segments that were not delivered, and why: what asking again cures
// matters less than what it does not.
func (r *run) fail(left []int64, err error) {
	r.left = append(r.left, left...)
	if err != nil && (r.err == nil || curable(r.err)) {
		r.err = err
	}
}

// fetch gets the wanted segments of every layer, verifies each and hands it to
// deliver exactly once, in any order. The first failure that asking again does
// not cure ends it. wanted is indexed by layer.
func (t *content) fetch(outer context.Context, wanted [][]int64, deliver sink) error {
	return t.fetchNoting(outer, wanted, nil, deliver)
}

// fetchNoting is fetch for who wants to see the segments as they were stored,
// too, before they are decrypted.
func (t *content) fetchNoting(outer context.Context, wanted [][]int64, note, deliver sink) error {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	f := &fetcher{content: t, note: note, deliver: deliver, cancel: cancel, width: maxStreams}
	f.changed = sync.NewCond(&f.mu)
	defer t.sources.enter(f)()
	if f.queue = t.jobs(wanted); len(f.queue) == 0 {
		return nil
	}
	// Streams that wait for work must notice that there will be none.
	stop := context.AfterFunc(ctx, func() { f.fail(ctx.Err()) })
	defer stop()

	if err := f.borrow(ctx); err != nil {
		return err
	}
	var streams sync.WaitGroup
	for range min(len(f.queue), maxStreams) - 1 {
		// More streams than memory allows are not worth waiting for.
		if !f.tryBorrow() {
			break
		}
		streams.Go(func() { f.stream(ctx) })
	}
	f.stream(ctx)
	streams.Wait()
	if f.err != nil && outer.Err() == nil {
		f.salvage(outer)
	}
	t.c.budget.repay(f.buffers.borrowed)
	if f.err != nil && outer.Err() != nil {
		// Why the caller stopped says more than what broke because of it.
		return context.Cause(outer)
	}
	// K46: what other loads learned of the lanes since is about this one too.
	return join(f.err, t.lanes.Err())
}

// jobs cuts the wanted segments into jobs.
func (t *content) jobs(wanted [][]int64) (queue []job) {
	var total int64
	for layer, segments := range wanted {
		if n := len(segments); n > 0 {
			total += int64(n) * min(t.maxStored(), t.layers[layer].Size)
		}
	}
	size := min(max(total/(4*maxStreams), minRange), maxRange)
	for layer, segments := range wanted {
		for len(segments) > 0 {
			n := 1
			for n < len(segments) && segments[n] == segments[n-1]+1 && int64(n+1)*t.maxStored() <= size {
				n++
			}
			queue = append(queue, job{layer: layer, wanted: segments[:n:n]})
			segments = segments[n:]
		}
	}
	return queue
}

// stream works jobs off until none is left or one failed for good.
func (f *fetcher) stream(ctx context.Context) {
	for {
		r, ok := f.next(ctx)
		if !ok {
			return
		}
		left, err := f.read(ctx, r)
		f.finish(ctx, r, left, err)
		f.done(r.job, r.left, r.err)
	}
}

// finish sees to it that what was read for a run is delivered, full group or
// not: when a process dies, only requests that are under way are lost.
func (f *fetcher) finish(ctx context.Context, r *run, left []int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for r.pending > 0 && f.err == nil {
		if !f.work(ctx, true) {
			f.changed.Wait()
		}
	}
	r.fail(left, err)
	slices.Sort(r.left)
}

// next takes a job and finds who to ask. Where there is nothing to be read, it
// works on what was. It waits where the first range of a source is still to be
// answered.
func (f *fetcher) next(ctx context.Context) (*run, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.err != nil || len(f.queue) == 0 && f.busy == 0 {
			return nil, false
		}
		if len(f.queue) > 0 && f.busy < f.width {
			j := f.queue[0]
			src, whole, ok := f.sources.pick(f.ranged(j))
			if ok {
				f.queue = f.queue[1:]
				f.busy++
				if whole {
					j = f.widen(j)
				}
				j.source, j.whole = src, whole
				return &run{job: j}, true
			}
		}
		if !f.work(ctx, false) {
			f.changed.Wait()
		}
	}
}

// ranged reports whether a job is for less than its whole layer.
func (t *content) ranged(j job) bool {
	return int64(len(j.wanted)) < t.index.Geometry(j.layer).Count()
}

// widen adds what else is queued for the layer to a job that will read it
// whole, so that the layer is not read once for each job.
func (f *fetcher) widen(j job) job {
	f.queue = slices.DeleteFunc(f.queue, func(other job) bool {
		if other.layer != j.layer {
			return false
		}
		j.wanted = append(j.wanted, other.wanted...)
		j.attempt = max(j.attempt, other.attempt)
		return true
	})
	slices.Sort(j.wanted)
	return j
}

// done puts what a job left undone back into the queue.
func (f *fetcher) done(j job, left []int64, err error) {
	again := f.sources.judge(j.source, f.ranged(j) && !j.whole, err)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.changed.Broadcast()
	f.busy--
	f.moved += int64(len(j.wanted) - len(left))
	switch {
	case f.err != nil:
		return
	case err == nil:
		f.width = min(f.width+1, maxStreams)
		return
	case again:
	case !curable(err):
		f.err = err
	case len(left) < len(j.wanted):
		j.attempt = 0 // a line that breaks again and again still moves on
	case errors.Is(err, ErrDigest):
		if j.attempt++; j.attempt >= digestAttempts {
			f.err = err
		}
	default:
		f.width = max(1, f.width/2)
		if f.moved > j.moved {
			j.attempt = 0 // others have got on
		}
		j.moved = f.moved
		if j.attempt++; j.attempt >= fetchAttempts {
			f.err = err
		}
	}
	if f.err != nil {
		f.cancel()
		return
	}
	f.c.logger().Debug("segments to be fetched again", "source", j.source.String(), "layer", j.layer, "segments", len(left), "attempt", j.attempt, "error", err)
	j.wanted, j.source, j.whole = left, nil, false
	f.queue = append(f.queue, j)
}

// fail ends the fetch, unless it has ended.
func (f *fetcher) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && (f.busy > 0 || len(f.queue) > 0) {
		f.err = err
	}
	f.changed.Broadcast()
}

// read fetches a job and hands on what it read. It returns the segments that it
// could not read with the reason.
func (f *fetcher) read(ctx context.Context, r *run) (left []int64, err error) {
	if err := pause(ctx, r.attempt); err != nil {
		return r.wanted, err
	}
	wanted, err := f.cached(ctx, r.job)
	if err != nil || len(wanted) == 0 {
		return wanted, err
	}
	g := f.index.Geometry(r.layer)
	ranged := f.ranged(r.job) && !r.whole
	first, last := wanted[0], wanted[len(wanted)-1]
	offset, length := int64(0), f.layers[r.layer].Size
	if ranged {
		end, n := g.Stored(last)
		offset, _ = g.Stored(first)
		length = end + n - offset
	} else {
		first, last = 0, g.Count()-1
	}
	body, err := r.source.Fetch(ctx, f.layers[r.layer], offset, length)
	if err != nil {
		return wanted, f.from(r.job, f.layerError(r.layer, err))
	}
	defer body.Close()
	if ranged {
		f.sources.honoured(r.source)
	} else if f.openers != nil {
		if err := f.checkHeader(r.layer, body); err != nil {
			return wanted, f.from(r.job, err)
		}
	}
	for k := first; k <= last && len(wanted) > 0; k++ {
		b, err := f.buffer(ctx)
		if err != nil {
			return wanted, err
		}
		_, n := g.Stored(k)
		if _, err := io.ReadFull(body, b[:n]); err != nil {
			// What came before the line broke is good.
			f.discard(b)
			return wanted, f.from(r.job, f.segmentError(r.layer, k, err))
		}
		if wanted[0] != k {
			f.discard(b)
			continue
		}
		wanted = wanted[1:]
		if !f.arrive(arrival{run: r, k: k, stored: b[:n]}) {
			break
		}
	}
	return wanted, nil
}

// from names the source in an error about its bytes.
func (f *fetcher) from(j job, err error) error {
	if e, ok := err.(*Error); ok {
		e.Host = j.source.String()
	}
	return err
}

// wake lets streams look at the queue again.
func (f *fetcher) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changed.Broadcast()
}
