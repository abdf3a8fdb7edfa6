// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
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

// slow reports whether so many streams bring less than so many cores can take.
func (p pace) slow(streams, cores int) bool {
	return float64(p.bytes)*float64(streams) < corePace*float64(cores)*p.waited.Seconds()
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

// start starts so many more streams, as far as there is work and memory for them.
// It is called under the lock.
func (f *fetcher) start(ctx context.Context, n int) {
	for n = min(n, len(f.queue), maxStreams-f.streams); n > 0 && f.tryBorrow(f.forStream(), 1); n-- {
		f.streams++
		f.running.Go(func() { f.stream(ctx) })
	}
}

// widen starts more streams where the lines are slow. It is called under the
// lock, with what was read since it was called last.
func (f *fetcher) widen(ctx context.Context, line pace) {
	f.pace.bytes += line.bytes
	f.pace.waited += line.waited
	if f.pace.bytes < paceBytes && f.pace.waited < paceWaited {
		return
	}
	if f.pace.slow(f.streams, cap(f.c.lanes)) {
		f.start(ctx, f.streams)
		f.pace = pace{}
	}
	if f.pace.bytes > pacePast {
		f.pace = pace{f.pace.bytes / 2, f.pace.waited / 2}
	}
}
