// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"fmt"
	"slices"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// Tensor is one tensor of a model, or a slice of one, as the verified header of
// its file describes it. The names of a model may repeat in different files.
type Tensor struct {
	Name  string
	DType string // As its format spells it: F32, BF16, F8_E4M3, Q4_K, …
	File  string // The file of the model that holds it.

	// Shape counts elements, outermost dimension first, whatever the format
	// of the file. Elements lie in C order, little-endian.
	Shape []int64

	// Offset is where the first byte lies in the file, and Size how many there
	// are. Those of a slice need not lie together in the file; in memory they do.
	Offset, Size int64

	block  tensor.Block
	region *tensor.Region // nil: Size bytes at Offset
}

// Slice returns the part of t with the indices from (inclusive) to to
// (exclusive) of one dimension, as a tensor of its own. Slices of slices
// narrow further. A slice of dimension 0 is one run of the file; of any other
// it is one run for each row that it cuts, and loading it fetches every segment
// that a row touches: see [Model.Cost].
//
// Errors: ErrConfig where t has no such indices, or where the slice begins or
// ends within a byte of a packed type or a block of a quantised one.
func (t Tensor) Slice(dim int, from, to int64) (Tensor, error) {
	s, err := t.slice(dim, from, to)
	if err != nil {
		return Tensor{}, &Error{Op: "slice", File: t.File, Segment: -1, Err: fmt.Errorf("%w: tensor %q: %w", ErrConfig, tensor.Clip(t.Name), err)}
	}
	return s, nil
}

func (t Tensor) slice(dim int, from, to int64) (Tensor, error) {
	whole, err := t.whole()
	if err != nil {
		return t, err
	}
	if t.region, err = whole.Slice(dim, from, to); err != nil {
		return t, err
	}
	t.Shape, t.Offset, t.Size = slices.Clone(t.region.Shape()), t.region.Offset(), t.region.Size()
	return t, nil
}

// whole is the region of t.
func (t Tensor) whole() (*tensor.Region, error) {
	switch {
	case t.region != nil:
		return t.region, nil
	case t.block.Elements == 0:
		return nil, fmt.Errorf("it is none of Model.Tensors")
	}
	return tensor.NewRegion(t.block, t.Offset, slices.Clone(t.Shape))
}

// TensorSink is where LoadTensors puts tensors.
type TensorSink struct {
	// Alloc returns the memory for a tensor, exactly t.Size bytes. It is called
	// for one tensor after the other, in the order asked for, before the first
	// byte is fetched. It must not keep t.Shape.
	Alloc func(t Tensor) ([]byte, error)

	// Done receives a tensor that is complete. From then on the memory is the
	// caller's. It may be called concurrently, in any order, and while other
	// tensors are still fetched; slow ones slow the network. An error ends the
	// load. Nil: the caller waits for LoadTensors.
	Done func(t Tensor, b []byte) error
}
