// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package tensor says where the bytes of tensors, and of slices of them, lie in
// a file. It is arithmetic: readers of file formats make an Info of what a
// header says, and whoever moves bytes asks a Region for its runs.
package tensor

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// ErrFormat is wrapped by every error about a tensor file that breaks a rule
// of its format.
var ErrFormat = errors.New("tensor file format")

// Bounds that both formats share. Real models come nowhere near, and each
// bounds an allocation.
const (
	MaxName = 64 << 10 // bytes of a name or key that is kept
	MaxRank = 64       // dimensions
)

// Reserve asks for memory before it is allocated. Readers call it with what
// every tensor and key costs them and end with its error.
type Reserve func(bytes int64) error

// Block is the smallest unit that a data type stores whole: Elements elements
// in Bytes bytes. Most types store one element; packed types need more to fill
// a byte, and quantised ones share a scale.
type Block struct{ Elements, Bytes int64 }

// Size returns the bytes of a tensor. Shapes whose product overflows, or that
// end within a block, are errors.
func (b Block) Size(shape []int64) (int64, error) {
	elements := int64(1)
	for _, n := range shape {
		if n < 0 {
			return 0, fmt.Errorf("%w: a dimension of %d", ErrFormat, n)
		}
		hi, lo := bits.Mul64(uint64(elements), uint64(n))
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("%w: shape %d has more than 2^63 elements", ErrFormat, shape)
		}
		elements = int64(lo)
	}
	if elements%b.Elements != 0 {
		return 0, fmt.Errorf("%w: shape %d ends within a block of %d elements", ErrFormat, shape, b.Elements)
	}
	hi, lo := bits.Mul64(uint64(elements/b.Elements), uint64(b.Bytes))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, fmt.Errorf("%w: shape %d has more than 2^63 bytes", ErrFormat, shape)
	}
	return int64(lo), nil
}

// Info is one tensor as the header of its file describes it.
type Info struct {
	Name   string
	DType  string
	Shape  []int64 // outermost dimension first
	Offset int64   // of the first byte, in the file
	Size   int64   // bytes
	Block  Block
}

// Cost is the memory that a reader reserves for one tensor: what describes it,
// its entry among the names seen, and its name twice.
func Cost(name string, rank int) int64 { return 256 + 2*int64(len(name)) + 8*int64(rank) }

// Clip shortens a name for a message.
func Clip(name string) string {
	const most = 80
	if len(name) <= most {
		return name
	}
	return name[:most] + "…"
}
