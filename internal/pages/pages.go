// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package pages has the memory that segments pass through: large buffers that
// live as long as one transfer. They are no part of Go's heap where the system
// can map memory for them. There the collector would run for each few that are
// made, the system would give every page of them by a fault of its own, and they
// would stay with the process when the transfer has ended.
package pages

import "sync"

// Pool has the buffers of one transfer. The one that came back last is handed out
// first, since it is most likely still in a cache. The zero Pool is ready, and
// safe for concurrent use.
type Pool struct {
	// Heap makes buffers of the heap all the same: for transfers of a few
	// segments, which end before it matters and would wait for the system. It
	// must not change once there are buffers.
	Heap bool

	mu     sync.Mutex
	free   [][]byte
	closed bool
}

// Get returns n bytes with any content.
func (p *Pool) Get(n int) []byte {
	if b := p.last(n); b != nil {
		return b[:n]
	}
	if p.Heap {
		return make([]byte, n)
	}
	return alloc(n)[:n]
}

func (p *Pool) last(n int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.free) - 1; i >= 0; i-- {
		if b := p.free[i]; cap(b) >= n {
			p.free = append(p.free[:i], p.free[i+1:]...)
			return b
		}
	}
	return nil
}

// Put takes back what Get returned, of whatever length, but from its beginning.
// It must not be used any more. Nil is nothing.
func (p *Pool) Put(b []byte) {
	if b == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		release(b)
		return
	}
	p.free = append(p.free, b)
}

// Close gives all buffers to the system: those that are in use when they come
// back.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, b := range p.free {
		release(b)
	}
	p.free = nil
}
