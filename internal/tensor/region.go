// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package tensor

import (
	"errors"
	"fmt"
	"iter"
	"slices"
)

// ErrSlice is wrapped by every error about a slice that a tensor does not have.
var ErrSlice = errors.New("slice")

// Region is a rectangular part of a tensor. Its bytes, in C order, are runs of
// the file: one where the part is contiguous, else one for each row that it
// cuts. A Region is not changed once made.
type Region struct {
	block Block
	base  int64 // of the whole tensor, in the file
	whole []int64
	from  []int64
	shape []int64

	offset int64 // of the first run, in the file
	run    int64 // bytes of one run; 0: the region is empty
	loops  []loop
}

// loop repeats what is inside it: count times, stride bytes apart in the file
// and step bytes apart in the region.
type loop struct{ count, stride, step int64 }

// Run is a stretch of a region: Length bytes at Offset in the file, which are
// those at At in the region.
type Run struct{ Offset, At, Length int64 }

// NewRegion is the whole of a tensor.
func NewRegion(block Block, offset int64, shape []int64) (*Region, error) {
	r := &Region{block: block, base: offset, whole: shape, from: make([]int64, len(shape)), shape: shape}
	return r, r.lay()
}

// Slice returns the part of r with the indices from (inclusive) to to
// (exclusive) of one dimension. Parts that begin or end within a block are
// errors.
func (r *Region) Slice(dim int, from, to int64) (*Region, error) {
	if dim < 0 || dim >= len(r.shape) {
		return nil, fmt.Errorf("%w: dimension %d of a tensor with %d", ErrSlice, dim, len(r.shape))
	}
	if from < 0 || from > to || to > r.shape[dim] {
		return nil, fmt.Errorf("%w: [%d, %d) of dimension %d, which has %d", ErrSlice, from, to, dim, r.shape[dim])
	}
	s := &Region{block: r.block, base: r.base, whole: r.whole, from: slices.Clone(r.from), shape: slices.Clone(r.shape)}
	s.from[dim] += from
	s.shape[dim] = to - from
	return s, s.lay()
}

// lay finds the runs. Dimensions from the innermost on that are taken whole,
// and the first that is not, make one run; those outside repeat it.
func (r *Region) lay() error {
	if _, err := r.block.Size(r.whole); err != nil {
		return err
	}
	var loops []loop
	r.offset = r.base
	run, start, stride := int64(1), int64(0), int64(1) // elements
	contiguous := true
	for d := len(r.whole) - 1; d >= 0; d-- {
		if r.shape[d] == 0 {
			return nil
		}
		start += r.from[d] * stride
		switch {
		case contiguous:
			run *= r.shape[d]
		case r.shape[d] > 1:
			loops = append(loops, loop{count: r.shape[d], stride: stride})
		}
		contiguous = contiguous && r.shape[d] == r.whole[d]
		stride *= r.whole[d]
	}
	var err error
	bytes := func(elements int64) int64 {
		if elements%r.block.Elements != 0 {
			err = fmt.Errorf("%w: [%d] from %d of %d begins or ends within a block of %d elements", ErrSlice, r.shape, r.from, r.whole, r.block.Elements)
		}
		return elements / r.block.Elements * r.block.Bytes
	}
	r.offset, r.run = r.base+bytes(start), bytes(run)
	step := r.run
	for i, l := range loops {
		loops[i].stride, loops[i].step = bytes(l.stride), step
		step *= l.count
	}
	slices.Reverse(loops)
	r.loops = loops
	return err
}

// Shape is that of the region. The caller must not change it.
func (r *Region) Shape() []int64 { return r.shape }

// Offset is that of the first byte in the file.
func (r *Region) Offset() int64 { return r.offset }

// Size is the number of bytes of all runs.
func (r *Region) Size() int64 {
	n := r.run
	for _, l := range r.loops {
		n *= l.count
	}
	return n
}

// End is the offset after the last byte in the file.
func (r *Region) End() int64 { return r.offset + span(r.loops, r.run) }

// span is the distance from the first byte to the end of the last.
func span(loops []loop, run int64) int64 {
	for _, l := range loops {
		run += (l.count - 1) * l.stride
	}
	return run
}

// Runs yields what the region has of the bytes low to high of the file, in
// order. It takes time for what it yields and not for what it passes over.
func (r *Region) Runs(low, high int64) iter.Seq[Run] {
	return func(yield func(Run) bool) {
		if r.run > 0 {
			r.runs(r.loops, r.offset, 0, low, high, yield)
		}
	}
}

func (r *Region) runs(loops []loop, offset, at, low, high int64, yield func(Run) bool) bool {
	if len(loops) == 0 {
		from, to := max(offset, low), min(offset+r.run, high)
		return from >= to || yield(Run{Offset: from, At: at + from - offset, Length: to - from})
	}
	l, rest := loops[0], loops[1:]
	// Those that end at low or before, and those that begin at high or after,
	// are not looked at.
	first := int64(0)
	if before := low - offset - span(rest, r.run); before >= 0 {
		first = before/l.stride + 1
	}
	for i := first; i < l.count && offset+i*l.stride < high; i++ {
		if !r.runs(rest, offset+i*l.stride, at+i*l.step, low, high, yield) {
			return false
		}
	}
	return true
}
