// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
)

// slotsPerPart is how many segments of one part are under way at a time, some
// being read and sealed, some on their way to the registry, beside those that are
// hashed together.
//
// A narrow part, of many, has no more than keep its line and its reader busy, and
// seals one at a time.
const (
	slotsPerPart = 6
	narrowSlots  = 3
)

// slot carries one segment through the stages of an upload.
type slot struct {
	memory []byte       // nil while it is free
	stored []byte       // the segment, in memory
	length int64        // of the content in it
	ready  chan error   // one value: sealed, or not
	users  atomic.Int32 // who still reads stored
}

// room is how many parts there is memory for, the first pushParts of which have
// begun with all that they seal at a time.
func (u *uploader) room() int {
	first, each := int64(narrowSlots), int64(narrowSlots)
	if u.encrypted() {
		first += min(slotsPerPart, int64(cap(u.c.lanes)+1))
		each++
	}
	segments := u.c.budget.buffers() / (u.plan.segment + encrypt.SegmentOverhead)
	return pushParts + int((segments-pushParts*first)/each)
}

// borrow waits for the memory of a part, whose segments have the given size. If
// it is free it takes that of a group to be hashed together, too. Where there are
// many groups, and enough is left to the other parts, the next one gathers while
// one is hashed.
func (p *part) borrow(ctx context.Context, segment int64) error {
	count := max(1, p.geometry.Count())
	p.narrow = p.pace.narrowed()
	narrow := p.isNarrow()
	n, sealing := int64(slotsPerPart), int64(cap(p.c.lanes)+1)
	if narrow {
		n, sealing = narrowSlots, 1
	}
	n = min(n, count)
	sealing = min(n, sealing)
	stored := segment
	size := n * stored
	if p.sealer != nil {
		stored += encrypt.SegmentOverhead
		size = n*stored + sealing*segment
	}
	if err := p.c.budget.borrow(ctx, size); err != nil {
		return err
	}
	p.group = 1
	if w := p.blob.Width(); w > 1 && count >= 2*int64(w) && segment <= index.DefaultSegmentSize && !narrow {
		extra := int64(2*w - 1)
		if count < 8*int64(w) || size+extra*stored > p.c.budget.limit/int64(min(len(p.plan.layers), pushParts)) {
			extra = int64(w - 1)
		}
		if p.c.budget.tryBorrow(extra * stored) {
			p.group, n, size = w, n+extra, size+extra*stored
		}
	}
	p.stored, p.borrowed, p.surplus = int(stored), size, n-narrowSlots
	p.free, p.ordered = make(chan *slot, n), make(chan *slot, n)
	for range n {
		p.free <- &slot{ready: make(chan error, 1)}
	}
	p.plain = make(chan struct{}, sealing)
	return nil
}

func (p *part) isNarrow() bool {
	select {
	case <-p.narrow:
		return true
	default:
		return false
	}
}

// slot waits for a free one. A part that has become narrow gives up what it does
// not need.
func (p *part) slot(ctx context.Context) (*slot, error) {
	for {
		select {
		case s := <-p.free:
			if p.surplus <= 0 || !p.isNarrow() {
				return s, nil
			}
			p.surplus--
			p.borrowed -= int64(p.stored)
			p.c.budget.repay(int64(p.stored))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// leave frees a slot when its last user has left it.
func (p *part) leave(s *slot) {
	if s.users.Add(-1) == 0 {
		p.memory.Put(s.memory)
		s.memory = nil
		p.free <- s
	}
}
