// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package safetensors reads the headers of safetensors files that an attacker
// may have written.
//
// A file is accepted where the reference reader accepts it: offsets without
// hole or overlap, sizes that follow from shape and type, nothing after the
// last tensor. It is also held to what the text of the format says and the
// reference lets pass: the header begins with a brace and is padded with
// spaces, no key occurs twice, an entry has its three members and no other.
package safetensors

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// maxHeader is the bound of the reference reader in bytes.
const maxHeader = 100_000_000

// blocks says how every data type is stored.
var blocks = map[string]tensor.Block{
	"BOOL": {Elements: 1, Bytes: 1},
	"U8":   {Elements: 1, Bytes: 1}, "I8": {Elements: 1, Bytes: 1},
	"U16": {Elements: 1, Bytes: 2}, "I16": {Elements: 1, Bytes: 2},
	"U32": {Elements: 1, Bytes: 4}, "I32": {Elements: 1, Bytes: 4},
	"U64": {Elements: 1, Bytes: 8}, "I64": {Elements: 1, Bytes: 8},
	"F16": {Elements: 1, Bytes: 2}, "BF16": {Elements: 1, Bytes: 2},
	"F32": {Elements: 1, Bytes: 4}, "F64": {Elements: 1, Bytes: 8}, "C64": {Elements: 1, Bytes: 8},
	"F8_E4M3": {Elements: 1, Bytes: 1}, "F8_E5M2": {Elements: 1, Bytes: 1}, "F8_E8M0": {Elements: 1, Bytes: 1},
	"F8_E4M3FNUZ": {Elements: 1, Bytes: 1}, "F8_E5M2FNUZ": {Elements: 1, Bytes: 1},
	"F6_E2M3": {Elements: 4, Bytes: 3}, "F6_E3M2": {Elements: 4, Bytes: 3},
	"F4": {Elements: 2, Bytes: 1},
}

// Read reads the header of a file of size bytes, and returns its tensors in
// the order of their offsets. Memory is reserved before it is used; besides it
// Read needs less than 256 KiB.
func Read(r io.ReaderAt, size int64, reserve tensor.Reserve) ([]tensor.Info, error) {
	if size < 8 {
		return nil, fmt.Errorf("%w: a file of %d bytes has no header", tensor.ErrFormat, size)
	}
	var length [8]byte
	if _, err := r.ReadAt(length[:], 0); err != nil && err != io.EOF {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader || int64(n) > size-8 {
		return nil, fmt.Errorf("%w: a header of %d bytes in a file of %d, limit %d", tensor.ErrFormat, n, size, maxHeader)
	}
	h := &header{s: newScanner(io.NewSectionReader(r, 8, int64(n))), reserve: reserve, names: make(map[string]struct{})}
	if err := h.read(); err != nil {
		return nil, err
	}
	if h.s.at != int64(n) {
		return nil, fmt.Errorf("%w: the file ends within its header", tensor.ErrFormat)
	}
	start := 8 + int64(n)
	end, err := place(h.tensors, start)
	if err != nil {
		return nil, err
	}
	if end != size {
		return nil, fmt.Errorf("%w: tensors end at byte %d of a file of %d", tensor.ErrFormat, end, size)
	}
	return h.tensors, nil
}

// header is what was read of one header.
type header struct {
	s       *scanner
	reserve tensor.Reserve
	names   map[string]struct{}
	tensors []tensor.Info
}

func (h *header) read() error {
	if b := h.s.next(); b != '{' {
		return h.s.fault("got %q, want the header to begin with a brace", b)
	}
	if err := h.s.object(h.member); err != nil {
		return err
	}
	for {
		switch b := h.s.next(); {
		case h.s.ended:
			return h.s.err
		case b != ' ':
			return h.s.fault("got %q after the header, want spaces only", b)
		}
	}
}

func (h *header) member(key string) error {
	if _, ok := h.names[key]; ok {
		return h.s.fault("key %q occurs twice", tensor.Clip(key))
	}
	if err := h.reserve(tensor.Cost(key, 0)); err != nil {
		return err
	}
	h.names[key] = struct{}{}
	if err := h.s.expect('{'); err != nil {
		return err
	}
	if key == "__metadata__" {
		return h.metadata()
	}
	t, err := h.entry(key)
	if err != nil {
		return err
	}
	h.tensors = append(h.tensors, t)
	return nil
}

// metadata reads the free text of a header, which is not used for anything.
func (h *header) metadata() error {
	keys := make(map[string]struct{})
	return h.s.object(func(key string) error {
		if _, ok := keys[key]; ok {
			return h.s.fault("key %q occurs twice in __metadata__", tensor.Clip(key))
		}
		if err := h.reserve(tensor.Cost(key, 0)); err != nil {
			return err
		}
		keys[key] = struct{}{}
		return h.s.skipText()
	})
}

// entry reads what a header says of one tensor. Its offsets count from the end
// of the header.
func (h *header) entry(name string) (tensor.Info, error) {
	t := tensor.Info{Name: name}
	var known bool
	var offsets []int64
	seen := make(map[string]struct{}, 3)
	err := h.s.object(func(key string) (err error) {
		if _, ok := seen[key]; ok {
			return h.s.fault("tensor %q has %q twice", tensor.Clip(name), key)
		}
		switch key {
		case "dtype":
			if t.DType, err = h.s.text(h.s.token()); err != nil {
				return err
			}
			if t.Block, known = blocks[t.DType]; !known {
				return h.s.fault("tensor %q is of unknown type %q", tensor.Clip(name), tensor.Clip(t.DType))
			}
		case "shape":
			t.Shape, err = h.s.integers(tensor.MaxRank)
		case "data_offsets":
			offsets, err = h.s.integers(2)
		default:
			return h.s.fault("tensor %q has an unknown member %q", tensor.Clip(name), tensor.Clip(key))
		}
		seen[key] = struct{}{}
		return err
	})
	if err != nil {
		return t, err
	}
	if len(seen) != 3 || len(offsets) != 2 || offsets[0] > offsets[1] {
		return t, h.s.fault("tensor %q lacks one of dtype, shape and two ascending data_offsets", tensor.Clip(name))
	}
	if err := h.reserve(8 * int64(len(t.Shape))); err != nil {
		return t, err
	}
	t.Offset, t.Size = offsets[0], offsets[1]-offsets[0]
	want, err := t.Block.Size(t.Shape)
	if err != nil {
		return t, fmt.Errorf("tensor %q: %w", tensor.Clip(name), err)
	}
	if t.Size != want {
		return t, h.s.fault("tensor %q of %s %d has %d bytes, want %d", tensor.Clip(name), t.DType, t.Shape, t.Size, want)
	}
	return t, nil
}

// place sorts the tensors, demands that each starts where the one before it
// ends, and makes their offsets those of the file. It returns the end of the
// last.
func place(tensors []tensor.Info, start int64) (end int64, err error) {
	slices.SortFunc(tensors, func(a, b tensor.Info) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Name, b.Name))
	})
	end = start
	for i := range tensors {
		t := &tensors[i]
		if t.Offset != end-start {
			return 0, fmt.Errorf("%w: tensor %q starts at %d, and what is before it ends at %d", tensor.ErrFormat, tensor.Clip(t.Name), t.Offset, end-start)
		}
		if t.Offset += start; t.Size > maxFile-t.Offset {
			return 0, fmt.Errorf("%w: tensor %q ends over 2^62 bytes", tensor.ErrFormat, tensor.Clip(t.Name))
		}
		end = t.Offset + t.Size
	}
	return end, nil
}

// maxFile keeps every offset of a file in 64 bits.
const maxFile = 1 << 62
