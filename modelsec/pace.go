// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"sync/atomic"
	"time"
)

// A fetch begins with one stream more than it has cores. Where the lines are fast
// these keep all cores busy, and more of them only fight for the caches. Where
// they are slow there are twice as many after each look, up to maxStreams. Small
// layers take longer to ask for than to read: for these there are as many at once.
const (
	smallRange = 2 << 20

	// corePace is what a core can take in bytes a second: read, hash, decrypt and
	// write, about.
	corePace = 384 << 20

	// The first look is at so many bytes, or at what came while all streams
	// together waited for so long. Later ones see more of the past, since lines
	// that share a machine or a switch bring their bytes in bursts.
	paceBytes  = 8 << 20
	paceWaited = 200 * time.Millisecond
	pacePast   = 8 * paceBytes
)

// pace is what came over lines, and how long streams waited for it.
type pace struct {
	bytes  int64
	waited time.Duration
}

// slow reports whether so many streams move less than so many cores could, each of
// which has the pace core, in bytes a second.
func (p pace) slow(streams, cores int, core float64) bool {
	return float64(p.bytes)*float64(streams) < core*float64(cores)*p.waited.Seconds()
}

// wait is how long a stream has waited for its line and nobody has counted yet. It
// is safe for concurrent use.
type wait struct{ since atomic.Int64 } // nanoseconds after epoch; 0: it does not wait

// epoch is before every wait.
var epoch = time.Now().Add(-time.Second)

func (w *wait) begin() { w.since.Store(int64(time.Since(epoch))) }

// end returns what was not counted before.
func (w *wait) end() time.Duration {
	if since := w.since.Swap(0); since != 0 {
		return time.Since(epoch) - time.Duration(since)
	}
	return 0
}

// soFar counts what goes on.
func (w *wait) soFar() time.Duration {
	since, now := w.since.Load(), int64(time.Since(epoch))
	if since == 0 || !w.since.CompareAndSwap(since, now) {
		return 0
	}
	return time.Duration(now - since)
}

// firstStreams is how many there are before anything was read.
func (f *fetcher) firstStreams() int {
	count := 0
	for _, j := range f.queue {
		count += len(j.wanted)
	}
	if int64(count)*f.size <= int64(len(f.queue))*smallRange {
		return maxStreams
	}
	return cap(f.c.lanes) + 1
}

// start starts so many more streams, as far as there is work and memory for them,
// and none when the fetch has failed: the caller's stream may have ended, and who
// waits for all others with it. It is called under the lock.
func (f *fetcher) start(ctx context.Context, n int) {
	for n = min(n, len(f.queue), maxStreams-f.streams); n > 0 && f.err == nil && f.tryBorrow(f.forStream(), 1); n-- {
		f.streams++
		f.running.Go(func() { f.stream(ctx) })
	}
}

// stalled looks at lines that bring nothing at all. It is called under the lock.
func (f *fetcher) stalled(ctx context.Context) {
	var line pace
	for r := range f.reading {
		line.waited += r.line.soFar()
	}
	f.widen(ctx, line)
}

// widen starts more streams where the lines are slow. It is called under the
// lock, with what was read since it was called last.
func (f *fetcher) widen(ctx context.Context, line pace) {
	f.pace.bytes += line.bytes
	f.pace.waited += line.waited
	if f.pace.bytes < paceBytes && f.pace.waited < paceWaited {
		return
	}
	if f.pace.slow(f.streams, cap(f.c.lanes), corePace) {
		f.start(ctx, f.streams)
		f.pace = pace{}
	}
	if f.pace.bytes > pacePast {
		f.pace = pace{f.pace.bytes / 2, f.pace.waited / 2}
	}
}
