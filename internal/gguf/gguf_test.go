// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gguf_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/modelsec/modelsec-go/internal/gguf"
	"github.com/modelsec/modelsec-go/internal/tensor"
	"github.com/modelsec/modelsec-go/internal/tensor/tensortest"
)

// maxMemory is what no file, however made, may cost.
const maxMemory = 64 << 20

var errMemory = errors.New("out of memory")

func within(limit int64) tensor.Reserve {
	return func(n int64) error {
		if limit -= n; limit < 0 {
			return errMemory
		}
		return nil
	}
}

func read(b []byte) ([]tensor.Info, error) {
	return gguf.Read(bytes.NewReader(b), int64(len(b)), within(maxMemory/2))
}

// allocated returns what f allocates in all, which is no less than it holds at
// any time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestReadTakesWhatFollowsTheRules(t *testing.T) {
	for _, c := range tensortest.GGUFCases() {
		t.Run(c.Name, func(t *testing.T) {
			var list []tensor.Info
			var err error
			if n := allocated(func() { list, err = read(c.File) }); n > maxMemory {
				t.Errorf("%d bytes were allocated", n)
			}
			switch {
			case c.Valid && err != nil:
				t.Errorf("refused: %v", err)
			case c.Valid:
				holds(t, list, c.File)
			case !errors.Is(err, tensor.ErrFormat) || list != nil:
				t.Errorf("got %v, %v, want ErrFormat", list, err)
			}
		})
	}
}

// holds demands that the tensors lie in the file, one after the other.
func holds(t *testing.T, list []tensor.Info, file []byte) {
	t.Helper()
	end := int64(24)
	for _, i := range list {
		size, err := i.Block.Size(i.Shape)
		if err != nil || i.Size != size || i.Offset < end || i.Size > int64(len(file))-i.Offset {
			t.Errorf("tensor %q of %s %d has %d bytes at %d after %d of %d", i.Name, i.DType, i.Shape, i.Size, i.Offset, end, len(file))
		}
		end = i.Offset + i.Size
	}
}

func TestReadReturnsTheOutermostDimensionFirst(t *testing.T) {
	g := tensortest.GGUF{Version: 3, Align: 32, Data: 64 + 34, Tensors: []tensortest.GGUFTensor{
		{Name: "a", Dims: []uint64{4, 3}, Type: 0}, {Name: "b", Dims: []uint64{32}, Type: 8, Offset: 64}}}
	list, err := read(g.Encode())
	if err != nil || len(list) != 2 {
		t.Fatalf("got %v, %v", list, err)
	}
	if a := list[0]; a.Name != "a" || a.DType != "F32" || !slices.Equal(a.Shape, []int64{3, 4}) || a.Size != 48 {
		t.Errorf("got %+v", a)
	}
	if b := list[1]; b.DType != "Q8_0" || b.Size != 34 || b.Offset != list[0].Offset+64 {
		t.Errorf("got %+v", b)
	}
}

// large is a file that claims many bytes: a head and then zeros.
type large struct{ head []byte }

func (l large) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	if off < int64(len(l.head)) {
		copy(p, l.head[off:])
	}
	return len(p), nil
}

// TestLargeClaimsStayInMemory: counts that a file of 2^50 bytes could hold.
func TestLargeClaimsStayInMemory(t *testing.T) {
	header := func(tensors, pairs uint64, rest ...[]byte) []byte {
		g := tensortest.GGUF{Version: 3}.Encode()
		b := append(g[:8:8], make([]byte, 16)...)
		for i := range 8 {
			b[8+i], b[16+i] = byte(tensors>>(8*i)), byte(pairs>>(8*i))
		}
		return append(b, bytes.Join(rest, nil)...)
	}
	words := func(n ...byte) []byte { return append(n, make([]byte, 8-len(n))...) }
	for name, b := range map[string][]byte{
		"tensors without names": header(1<<40, 0),
		"pairs without keys":    header(0, 1<<40),
		"one long key":          header(0, 1, []byte{0, 0, 0, 0, 0, 1, 0, 0}),
		"one long string":       header(0, 1, tensortest.Pair("k", 8, []byte{0, 0, 0, 0, 0, 1, 0, 0})),
		"array without end":     header(1, 1, tensortest.Pair("k", 9, append([]byte{0, 0, 0, 0}, words(0, 0, 0, 0, 0, 0, 8)...))),
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			n := allocated(func() { _, err = gguf.Read(large{b}, 1<<50, within(maxMemory/2)) })
			if !errors.Is(err, tensor.ErrFormat) || n > maxMemory {
				t.Errorf("got %v after %d bytes", err, n)
			}
		})
	}
}

// TestFailedReadsAreNotFormatErrors: a line that breaks says nothing about the
// file.
func TestFailedReadsAreNotFormatErrors(t *testing.T) {
	b := tensortest.GGUFCases()[0].File
	broken := errors.New("broken")
	for n := 0; n < 100; n++ {
		r := readerAt{io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))}
		if _, err := gguf.Read(r, int64(len(b)), within(maxMemory)); !errors.Is(err, broken) || errors.Is(err, tensor.ErrFormat) {
			t.Fatalf("after %d bytes: got %v", n, err)
		}
	}
}

// readerAt is a stream that is read in order.
type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return io.ReadFull(r.Reader, p) }

// FuzzRead: the tensors of what is accepted lie in the file.
func FuzzRead(f *testing.F) {
	for _, c := range tensortest.GGUFCases() {
		if c.Valid {
			f.Add(c.File)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := read(b)
		if err == nil {
			holds(t, list, b)
		} else if list != nil || !errors.Is(err, tensor.ErrFormat) && !errors.Is(err, errMemory) {
			t.Errorf("got %v, %v", list, err)
		}
	})
}
