// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"

	"github.com/modelsec/modelsec-go/internal/pages"
)

// fewSegments is how many a fetch has to want for memory outside of the heap.
const fewSegments = 2 * maxGroup

// buffers are the memory of a fetch, each for one segment. They belong to it
// until it ends.
type buffers struct {
	pool     *pages.Pool
	size     int64 // of one buffer
	borrowed int64 // bytes of the client's budget
	room     int   // buffers that may be taken
	extra    int   // buffers that may be borrowed beside those of the streams
}

// prepare finds out how large the buffers have to be.
func (f *fetcher) prepare(wanted [][]int64) {
	count := 0
	for layer, segments := range wanted {
		if len(segments) > 0 {
			count += len(segments)
			_, n := f.index.Geometry(layer).Stored(0)
			f.size = max(f.size, n)
		}
	}
	f.pool = &pages.Pool{Heap: count < fewSegments}
}

// forStream is the memory of one stream: a buffer to fill, and one to decrypt into.
func (f *fetcher) forStream() int64 { return f.size + f.forPlain() }

// forPlain is the memory to decrypt one segment into.
func (f *fetcher) forPlain() int64 {
	if f.openers == nil {
		return 0
	}
	return f.size
}

// borrow waits for the memory of the first stream.
func (f *fetcher) borrow(ctx context.Context) error {
	size := f.forStream()
	if err := f.c.budget.borrow(ctx, size); err != nil {
		return err
	}
	f.borrowed, f.room = size, 1
	// While half of the cores hash a group each, the others gather the next.
	if n := f.groupSize(); n > 1 {
		f.extra = n * max(1, cap(f.c.lanes)/2)
	}
	return nil
}

// tryBorrow takes so many bytes, with room for so many buffers, if they are free.
// It is called under the lock.
func (f *fetcher) tryBorrow(size int64, room int) bool {
	if !f.c.budget.tryBorrow(size) {
		return false
	}
	f.borrowed += size
	f.room += room
	return true
}

// repay gives all memory back. Nobody uses it any more.
func (f *fetcher) repay() {
	for _, list := range [][]arrival{f.group, f.hashed} {
		for _, a := range list {
			f.pool.Put(a.stored)
		}
	}
	f.pool.Close()
	f.c.budget.repay(f.borrowed)
}

// buffer returns memory for one stored segment. Who asks for it first does what
// work there is. Where there is no memory it waits for others to give some back,
// and if there is nobody who would, a group that is not full has to do. Where
// the fetch has ended, that is context.Canceled: the cause says nothing about a
// source.
func (f *fetcher) buffer(ctx context.Context) ([]byte, error) {
	if !f.take(ctx) {
		return nil, context.Canceled
	}
	return f.pool.Get(int(f.size)), nil
}

func (f *fetcher) take(ctx context.Context) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.work(ctx, false) {
	}
	for f.err == nil {
		if f.room == 0 && f.extra > 0 && f.tryBorrow(f.size, 1) {
			f.extra--
		}
		if f.room > 0 {
			f.room--
			return true
		}
		if !f.work(ctx, f.working == 0) {
			f.changed.Wait()
		}
	}
	return false
}

// discard gives back a buffer.
func (f *fetcher) discard(b []byte) {
	f.pool.Put(b)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.room++
	f.changed.Broadcast()
}

// plain returns memory to decrypt into; nil in the plain profile.
func (f *fetcher) plain() []byte {
	if f.openers == nil {
		return nil
	}
	return f.pool.Get(int(f.size))
}
