// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"math/bits"
	"slices"

	"github.com/modelsec/modelsec-go/modelsec"
)

// alignment of tensors on the device, which is that of cuMemAlloc.
const alignment = 256

// rowGroup is how many indices of a dimension are kept together where that many
// fit: a multiple of the elements of every block of every type, so that no cut
// is within a block of a packed or quantised one.
const rowGroup = 256

// piece is a tensor, or a slice of one, that fits a slot.
type piece struct {
	tensor modelsec.Tensor
	at     int64 // on the device, from the start of the memory
}

// batch is what goes through a slot at once.
type batch struct {
	pieces []piece
	size   int64 // bytes of all
}

// offsets yields the pieces by where they lie in the slot.
func (b batch) offsets() iter.Seq2[int64, piece] {
	return func(yield func(int64, piece) bool) {
		from := int64(0)
		for _, p := range b.pieces {
			if !yield(from, p) {
				return
			}
			from += p.tensor.Size
		}
	}
}

// layout says where tensors lie on the device: in the order asked for.
func layout(want []modelsec.Tensor) (placed []Tensor, size int64, err error) {
	for _, t := range want {
		if t.Size > math.MaxInt64-size-alignment {
			return nil, 0, fmt.Errorf("cuda: %w: a tensor of %d bytes after %d", modelsec.ErrConfig, t.Size, size)
		}
		placed = append(placed, Tensor{Tensor: t, at: size})
		size += (t.Size + alignment - 1) &^ (alignment - 1)
	}
	return placed, size, nil
}

// batches cuts tensors into what fits a slot, in the order of the files, so that
// few segments have bytes in two batches.
func batches(placed []Tensor, slot int64) ([]batch, error) {
	var list []batch
	var b batch
	for _, t := range slices.SortedStableFunc(slices.Values(placed), func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Tensor.File, b.Tensor.File), cmp.Compare(a.Tensor.Offset, b.Tensor.Offset))
	}) {
		if err := consistent(t.Tensor, slot); err != nil {
			return nil, err
		}
		at := t.at
		err := cut(t.Tensor, slot, func(part modelsec.Tensor) {
			if b.size+part.Size > slot {
				list, b = append(list, b), batch{}
			}
			b.pieces = append(b.pieces, piece{part, at})
			b.size += part.Size
			at += part.Size
		})
		if err != nil {
			return nil, err
		}
	}
	if b.size > 0 {
		list = append(list, b)
	}
	return list, nil
}

// consistent refuses a tensor that would be cut into more or less than it has.
// The fields of Tensor are the caller's to change.
func consistent(t modelsec.Tensor, slot int64) error {
	if t.Size <= slot {
		return nil
	}
	if len(t.Shape) > 0 {
		whole, err := t.Slice(0, 0, t.Shape[0])
		if err != nil {
			return err
		}
		if whole.Size == t.Size {
			return nil
		}
	}
	return fmt.Errorf("cuda: %w: a tensor of %q of shape %d has no %d bytes", modelsec.ErrConfig, t.File, t.Shape, t.Size)
}

// cut calls add with the parts of a tensor in the order of its bytes, none of
// them larger than limit and none empty.
func cut(t modelsec.Tensor, limit int64, add func(modelsec.Tensor)) error {
	if t.Size == 0 {
		return nil
	}
	if t.Size <= limit {
		add(t)
		return nil
	}
	// No element is as large as a slot, so there is a dimension to cut.
	dim := slices.IndexFunc(t.Shape, func(n int64) bool { return n > 1 })
	rows := t.Shape[dim]
	// As many as fit; a row of a packed type need not be whole bytes.
	hi, lo := bits.Mul64(uint64(limit), uint64(rows))
	fit, _ := bits.Div64(hi, lo, uint64(t.Size))
	step := max(int64(fit), 1)
	for _, group := range []int64{rowGroup, 8} {
		if step >= group {
			step -= step % group
			break
		}
	}
	for from := int64(0); from < rows; from += step {
		part, err := t.Slice(dim, from, min(from+step, rows))
		if err != nil {
			return err
		}
		if err := cut(part, limit, add); err != nil {
			return err
		}
	}
	return nil
}
