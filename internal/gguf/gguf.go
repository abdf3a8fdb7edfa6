// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package gguf reads the headers of GGUF files, versions 2 and 3, that an
// attacker may have written.
//
// The rules are those of ggml's own reader: every tensor starts where the one
// before it ends, padded to the alignment of the file, and lies within the
// file; no key and no tensor occurs twice. Sizes are computed in checked 64-bit
// arithmetic, every count is bounded by the bytes that are left, and metadata
// is read over without being kept. Big-endian files are refused.
package gguf

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// Bounds, each far above what real models have.
const (
	defaultAlignment = 32
	maxAlignment     = 1 << 20
	maxString        = 64 << 20 // bytes of a value that is not kept; chat templates have some KB
	maxDimensions    = 4        // of ggml
	maxFile          = 1 << 62  // keeps every offset in 64 bits
)

const alignmentKey = "general.alignment"

// Read reads the header of a file of size bytes, and returns its tensors in
// the order of their offsets, with shapes that name the outermost dimension
// first. Memory is reserved before it is used; besides it Read needs less than
// 256 KiB.
func Read(r io.ReaderAt, size int64, reserve tensor.Reserve) ([]tensor.Info, error) {
	if size > maxFile {
		return nil, fmt.Errorf("%w: a file of %d bytes", tensor.ErrFormat, size)
	}
	h := &header{c: newCursor(r, size), reserve: reserve, alignment: defaultAlignment}
	tensors, err := h.read()
	if h.c.err != nil {
		// What was read after a failure means nothing.
		return nil, h.c.err
	}
	return tensors, err
}

// header is what was read of one header.
type header struct {
	c         *cursor
	reserve   tensor.Reserve
	alignment int64
}

func (h *header) read() ([]tensor.Info, error) {
	if magic := h.c.bytes(4); string(magic) != "GGUF" {
		return nil, h.c.fault("the file begins with %q, not GGUF", magic)
	}
	switch version := h.c.uint32(); version {
	case 2, 3:
	case 2 << 24, 3 << 24:
		return nil, h.c.fault("a big-endian file")
	default:
		return nil, h.c.fault("version %d, this reader knows 2 and 3", version)
	}
	// No tensor takes fewer bytes than 24 and no pair fewer than 13.
	count := h.c.count(24)
	pairs := h.c.count(13)
	if err := h.metadata(pairs); err != nil {
		return nil, err
	}
	return h.tensors(count)
}

// metadata reads over the pairs of keys and values. Only the alignment is of
// interest.
func (h *header) metadata(pairs int64) error {
	keys := make(map[string]struct{})
	for range pairs {
		key := h.c.text()
		if h.c.err != nil {
			return h.c.err
		}
		if _, ok := keys[key]; ok {
			return h.c.fault("key %q occurs twice", tensor.Clip(key))
		}
		if err := h.reserve(tensor.Cost(key, 0)); err != nil {
			return err
		}
		keys[key] = struct{}{}
		kind := h.c.uint32()
		if key == alignmentKey {
			if kind != kindUint32 {
				return h.c.fault("%s is of type %d, want %d", alignmentKey, kind, kindUint32)
			}
			h.alignment = int64(h.c.uint32())
			if a := h.alignment; a == 0 || a&(a-1) != 0 || a > maxAlignment {
				return h.c.fault("%s is %d, want a power of two up to %d", alignmentKey, a, maxAlignment)
			}
			continue
		}
		h.c.value(kind)
		if h.c.err != nil {
			return fmt.Errorf("key %q: %w", tensor.Clip(key), h.c.err)
		}
	}
	return nil
}

func (h *header) tensors(count int64) ([]tensor.Info, error) {
	var list []tensor.Info
	names := make(map[string]struct{})
	end := int64(0) // of the tensor before, in the data section, padded
	for range count {
		t, err := h.tensor()
		if err != nil {
			return nil, err
		}
		if _, ok := names[t.Name]; ok {
			return nil, h.c.fault("tensor %q occurs twice", tensor.Clip(t.Name))
		}
		names[t.Name] = struct{}{}
		if t.Offset != end {
			return nil, h.c.fault("tensor %q starts at %d, and what is before it ends at %d", tensor.Clip(t.Name), t.Offset, end)
		}
		if t.Size > maxFile-end {
			return nil, h.c.fault("tensor %q ends over 2^62 bytes", tensor.Clip(t.Name))
		}
		end = pad(end+t.Size, h.alignment)
		list = append(list, t)
	}
	start := pad(h.c.at, h.alignment)
	for i := range list {
		t := &list[i]
		if t.Offset += start; t.Size > h.c.size-t.Offset {
			return nil, h.c.fault("tensor %q of %d bytes at %d does not lie in a file of %d", tensor.Clip(t.Name), t.Size, t.Offset, h.c.size)
		}
	}
	return list, nil
}

// tensor reads one description. Its offset counts from the data section.
func (h *header) tensor() (tensor.Info, error) {
	t := tensor.Info{Name: h.c.text()}
	if h.c.err == nil && strings.ContainsRune(t.Name, 0) {
		return t, h.c.fault("tensor name %q holds a zero byte", tensor.Clip(t.Name))
	}
	rank := h.c.uint32()
	if rank > maxDimensions {
		return t, h.c.fault("tensor %q has %d dimensions, limit %d", tensor.Clip(t.Name), rank, maxDimensions)
	}
	if err := h.reserve(tensor.Cost(t.Name, int(rank))); err != nil {
		return t, err
	}
	for range rank {
		n := h.c.uint64()
		if n > maxFile {
			return t, h.c.fault("tensor %q has a dimension of %d", tensor.Clip(t.Name), n)
		}
		t.Shape = append(t.Shape, int64(n))
	}
	kind := h.c.uint32()
	offset := h.c.uint64()
	if h.c.err != nil {
		return t, h.c.err
	}
	ty, ok := types[kind]
	if !ok {
		return t, h.c.fault("tensor %q is of unknown type %d", tensor.Clip(t.Name), kind)
	}
	t.DType, t.Block = ty.name, ty.block
	// Blocks lie along the innermost dimension, which the file names first.
	if len(t.Shape) > 0 && t.Shape[0]%t.Block.Elements != 0 || len(t.Shape) == 0 && t.Block.Elements > 1 {
		return t, h.c.fault("tensor %q has rows that end within a block of %d elements", tensor.Clip(t.Name), t.Block.Elements)
	}
	slices.Reverse(t.Shape)
	if offset > maxFile || int64(offset)%h.alignment != 0 {
		return t, h.c.fault("tensor %q starts at %d, which is not aligned to %d", tensor.Clip(t.Name), offset, h.alignment)
	}
	t.Offset = int64(offset)
	var err error
	if t.Size, err = t.Block.Size(t.Shape); err != nil {
		return t, fmt.Errorf("tensor %q: %w", tensor.Clip(t.Name), err)
	}
	return t, nil
}

// pad rounds up to a multiple of alignment. n is at most maxFile.
func pad(n, alignment int64) int64 { return (n + alignment - 1) / alignment * alignment }

// text reads a string that is kept.
func (c *cursor) text() string {
	n := c.length(1)
	if n > tensor.MaxName {
		c.fail(c.fault("a name of %d bytes, limit %d", n, tensor.MaxName))
		return ""
	}
	b := c.bytes(int(n))
	if !utf8.Valid(b) {
		c.fail(c.fault("a name that is not UTF-8"))
		return ""
	}
	return string(b)
}

// count reads how many things follow that have at least that many bytes each.
func (c *cursor) count(each int64) int64 {
	n := c.length(each)
	if c.err != nil {
		return 0
	}
	return n
}

// length reads a 64-bit number of things of at least each bytes, and fails
// where the rest of the file cannot hold so many.
func (c *cursor) length(each int64) int64 {
	n := c.uint64()
	if c.err == nil && n > uint64((c.size-c.at)/each) {
		c.fail(c.fault("%d times %d bytes in the %d that are left", n, each, c.size-c.at))
		return 0
	}
	return int64(n)
}

func (c *cursor) uint32() uint32 { return binary.LittleEndian.Uint32(c.fixed(4)) }
func (c *cursor) uint64() uint64 { return binary.LittleEndian.Uint64(c.fixed(8)) }
