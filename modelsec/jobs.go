// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"errors"
	"slices"
)

// Bounds of one request in bytes. Registries and object stores are fastest
// with ranges of some tens of MiB; smaller ones only spread few bytes over
// many connections.
const (
	minRange = 16 << 20
	maxRange = 32 << 20
)

// job is what one request fetches: segments of one layer, in order.
type job struct {
	layer   int
	wanted  []int64
	attempt int
	moved   int64   // what the fetch had delivered when the job last failed
	source  *source // who is asked; nil while queued
	whole   bool    // by reading the layer from its beginning
}

// run is a job that was taken. It is done when it was read and all of what was
// read is judged, by whichever stream.
type run struct {
	job
	line    wait    // for what is being read
	ended   bool    // has been read
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

// ranged reports whether a job is for less than its whole layer.
func (t *content) ranged(j job) bool {
	return int64(len(j.wanted)) < t.index.Geometry(j.layer).Count()
}

// absorb adds what else is queued for the layer to a job that will read it
// whole, so that the layer is not read once for each job.
func (f *fetcher) absorb(j job) job {
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

// end notes that a run was read.
func (f *fetcher) end(r *run, left []int64, err error) {
	f.mu.Lock()
	r.fail(left, err)
	r.ended = true
	delete(f.reading, r)
	over := r.pending == 0
	f.changed.Broadcast()
	f.mu.Unlock()
	if over {
		f.done(r)
	}
}

// done puts what a run left undone back into the queue. Nobody takes a job
// between what is learned of its source and that: a layer that is read whole is
// read for all of them.
func (f *fetcher) done(r *run) {
	f.mu.Lock()
	again, news := f.sources.judge(r.source, f.ranged(r.job) && !r.whole, r.err)
	f.settle(r, again)
	f.changed.Broadcast()
	f.mu.Unlock()
	if news {
		f.sources.wake()
	}
}

func (f *fetcher) settle(r *run, again bool) {
	j, left, err := r.job, r.left, r.err
	slices.Sort(left)
	f.runs--
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
