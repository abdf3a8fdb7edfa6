// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"io"
	"sync"
	"time"
)

// sink takes the content of one verified segment. It is called concurrently;
// content is only valid during the call.
type sink func(layer int, k int64, content []byte) error

// fetcher is one fetch: a queue of jobs and the streams that work it off. What
// the streams have read waits until there is a group of segments, as many as
// the processor hashes at a time, from whichever jobs; then it waits for
// somebody to decrypt and deliver it. Streams do all of this themselves, before
// they read on, so that nothing is read that nobody has time for.
type fetcher struct {
	*content
	buffers
	note    sink // nil: not wanted
	deliver sink

	mu      sync.Mutex
	changed *sync.Cond
	queue   []job
	runs    int           // jobs that were taken and are not done
	reading map[*run]bool // those of them that are being read
	streams int           // that were started
	width   int           // streams that may read: fewer where a line breaks before a segment is through
	pace    pace
	moved   int64 // segments delivered
	group   []arrival
	since   time.Time // of the oldest in group
	hashed  []arrival
	working int // who hashes or delivers
	err     error
	cancel  context.CancelFunc
	running sync.WaitGroup // streams beside the caller's
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
	f := &fetcher{content: t, note: note, deliver: deliver, cancel: cancel, reading: make(map[*run]bool), width: maxStreams}
	f.changed = sync.NewCond(&f.mu)
	defer t.sources.enter(f)()
	if f.queue = t.jobs(wanted); len(f.queue) == 0 {
		return nil
	}
	// Streams that wait for work must notice that there will be none.
	stop := context.AfterFunc(ctx, func() { f.fail(ctx.Err()) })
	defer stop()

	f.prepare(wanted)
	if err := f.borrow(ctx); err != nil {
		return err
	}
	defer f.repay()
	f.flow(ctx)
	if f.err != nil && outer.Err() == nil {
		f.salvage(outer)
	}
	if f.err != nil && outer.Err() != nil {
		// Why the caller stopped says more than what broke because of it.
		return context.Cause(outer)
	}
	// K46: what other loads learned of the lanes since is about this one too.
	return join(f.err, t.lanes.Err())
}

// flow runs the streams, and what sees to it that nothing waits for long, until all
// have ended. More of either than memory allows is not worth waiting for.
func (f *fetcher) flow(ctx context.Context) {
	var gathering sync.WaitGroup
	ended := make(chan struct{})
	f.mu.Lock()
	if f.tryBorrow(f.forPlain(), 0) {
		gathering.Go(func() { f.gather(ctx, ended) })
	}
	f.streams = 1
	f.start(ctx, f.firstStreams()-1)
	f.mu.Unlock()
	f.stream(ctx)
	f.running.Wait()
	close(ended)
	gathering.Wait()
}

// stream works jobs off until none is left or one failed for good.
func (f *fetcher) stream(ctx context.Context) {
	for {
		r, ok := f.next(ctx)
		if !ok {
			return
		}
		left, err := f.read(ctx, r)
		f.end(r, left, err)
	}
}

// next takes a job and finds who to ask. Where there is nothing to be read, it
// works on what was; a group that is not full waits while others read. It waits
// where the first range of a source is still to be answered.
func (f *fetcher) next(ctx context.Context) (*run, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if f.err != nil || len(f.queue) == 0 && f.runs == 0 {
			return nil, false
		}
		if len(f.queue) > 0 && len(f.reading) < f.width {
			j := f.queue[0]
			src, whole, ok := f.sources.pick(f.ranged(j))
			if ok {
				f.queue = f.queue[1:]
				f.runs++
				if whole {
					j = f.absorb(j)
				}
				j.source, j.whole = src, whole
				r := &run{job: j}
				f.reading[r] = true
				return r, true
			}
		}
		if !f.work(ctx, len(f.reading) == 0) {
			f.changed.Wait()
		}
	}
}

// fail ends the fetch, unless it has ended.
func (f *fetcher) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && (f.runs > 0 || len(f.queue) > 0) {
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
	var line pace
	r.line.begin()
	defer r.line.end()
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
	line.waited = r.line.end()
	for k := first; k <= last && len(wanted) > 0; k++ {
		b, err := f.buffer(ctx)
		if err != nil {
			return wanted, err
		}
		_, n := g.Stored(k)
		r.line.begin()
		if _, err := io.ReadFull(body, b[:n]); err != nil {
			// What came before the line broke is good.
			f.discard(b)
			return wanted, f.from(r.job, f.segmentError(r.layer, k, err))
		}
		line.waited += r.line.end()
		line.bytes += n
		if wanted[0] != k {
			f.discard(b)
			continue
		}
		wanted = wanted[1:]
		if !f.arrive(ctx, arrival{run: r, k: k, stored: b[:n]}, line) {
			break
		}
		line = pace{}
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
