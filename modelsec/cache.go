// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"slices"
	"sync"
)

// cacheSegments is how many segments a model keeps for random access, memory
// permitting. Reads that are near each other share a segment or two; more only
// helps callers who should read larger pieces.
const cacheSegments = 16

// segmentCache keeps verified content that a read used only in part, so that a
// sequence of small reads fetches each segment once. Least recently used goes
// first.
type segmentCache struct {
	budget *budget
	size   int64 // bytes of one segment

	mu      sync.Mutex
	entries []cacheEntry // most recently used last
	dropped bool
}

type cacheEntry struct {
	layer   int
	k       int64
	content []byte
}

func newSegmentCache(b *budget, segment int64) *segmentCache {
	return &segmentCache{budget: b, size: segment}
}

// view lends the content of a segment, if it is there, to f.
func (c *segmentCache) view(layer int, k int64, f func(content []byte)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.entries {
		if e.layer == layer && e.k == k {
			c.entries = append(slices.Delete(c.entries, i, i+1), e)
			f(e.content)
			return true
		}
	}
	return false
}

// put copies content into the cache, in place of the oldest where there is no
// room, or not at all where the budget has none.
func (c *segmentCache) put(layer int, k int64, content []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped || slices.ContainsFunc(c.entries, func(e cacheEntry) bool { return e.layer == layer && e.k == k }) {
		return
	}
	var buf []byte
	switch {
	case len(c.entries) < cacheSegments && c.budget.hold(c.size, "the cache") == nil:
		buf = make([]byte, 0, c.size)
	case len(c.entries) > 0:
		buf = c.entries[0].content[:0]
		c.entries = slices.Delete(c.entries, 0, 1)
	default:
		return
	}
	c.entries = append(c.entries, cacheEntry{layer, k, append(buf, content...)})
}

// room is how many segments the cache has or could have.
func (c *segmentCache) room() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dropped {
		return 0
	}
	have := int64(len(c.entries))
	return min(cacheSegments, have+c.budget.holdable()/c.size)
}

// drop wipes the cache for good.
func (c *segmentCache) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.entries {
		clear(e.content)
		c.budget.release(c.size)
	}
	c.entries, c.dropped = nil, true
}
