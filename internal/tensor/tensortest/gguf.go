// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package tensortest

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// le is a little-endian encoding that grows.
type le []byte

func (b le) u32(v uint32) le  { return binary.LittleEndian.AppendUint32(b, v) }
func (b le) u64(v uint64) le  { return binary.LittleEndian.AppendUint64(b, v) }
func (b le) str(s string) le  { return append(b.u64(uint64(len(s))), s...) }
func (b le) more(c []byte) le { return append(b, c...) }

// GGUF is a file of that format before it is encoded. Counts that are not set
// follow from the lists.
type GGUF struct {
	Version uint32
	Pairs   [][]byte
	Tensors []GGUFTensor
	Align   int // of the data section
	Data    int // bytes of it

	tensorCount, pairCount *uint64
}

// GGUFTensor is one description. Dims names the innermost dimension first.
type GGUFTensor struct {
	Name   string
	Dims   []uint64
	Type   uint32
	Offset uint64
}

// Encode returns the file.
func (g GGUF) Encode() []byte {
	tensors, pairs := uint64(len(g.Tensors)), uint64(len(g.Pairs))
	if g.tensorCount != nil {
		tensors = *g.tensorCount
	}
	if g.pairCount != nil {
		pairs = *g.pairCount
	}
	b := le("GGUF").u32(g.Version).u64(tensors).u64(pairs)
	for _, p := range g.Pairs {
		b = b.more(p)
	}
	for _, t := range g.Tensors {
		b = b.str(t.Name).u32(uint32(len(t.Dims)))
		for _, n := range t.Dims {
			b = b.u64(n)
		}
		b = b.u32(t.Type).u64(t.Offset)
	}
	if g.Data > 0 {
		for len(b)%g.Align != 0 {
			b = append(b, 0)
		}
	}
	for i := range g.Data {
		b = append(b, byte(i))
	}
	return b
}

// Pair encodes a pair of metadata.
func Pair(key string, kind uint32, value []byte) []byte {
	return le(nil).str(key).u32(kind).more(value)
}

func sound() GGUF {
	return GGUF{Version: 3, Align: 32, Data: 32 + 32 + 34,
		Pairs: [][]byte{
			Pair("general.architecture", 8, le(nil).str("llama")),
			Pair("general.name", 8, le(nil).str("a sound file")),
			Pair("numbers", 9, le(nil).u32(4).u64(3).u32(1).u32(2).u32(3)),
			Pair("tokens", 9, le(nil).u32(8).u64(2).str("<s>").str("")),
			Pair("u8", 0, []byte{1}), Pair("i8", 1, []byte{2}), Pair("u16", 2, []byte{1, 2}), Pair("i16", 3, []byte{1, 2}),
			Pair("u32", 4, le(nil).u32(7)), Pair("i32", 5, le(nil).u32(7)), Pair("f32", 6, le(nil).u32(math.Float32bits(1.5))),
			Pair("bool", 7, []byte{1}), Pair("u64", 10, le(nil).u64(9)), Pair("i64", 11, le(nil).u64(9)), Pair("f64", 12, le(nil).u64(math.Float64bits(2.5))),
		},
		Tensors: []GGUFTensor{
			{Name: "token_embd.weight", Dims: []uint64{3, 2}, Type: 0},
			{Name: "blk.0.attn_q.weight", Dims: []uint64{8, 2}, Type: 1, Offset: 32},
			{Name: "output.weight", Dims: []uint64{32, 1}, Type: 8, Offset: 64},
		}}
}

// GGUFCases are files of that format.
func GGUFCases() []Case {
	cases := append(validGGUF(), malformedGGUF()...)
	whole := sound().Encode()
	for n := 0; n < len(whole); n += 7 {
		cases = append(cases, Case{Name: fmt.Sprintf("cut after %d bytes", n), File: whole[:n]})
	}
	return cases
}

func validGGUF() []Case {
	var cases []Case
	ok := func(name string, change func(g *GGUF)) {
		g := sound()
		change(&g)
		cases = append(cases, Case{Name: name, File: g.Encode(), Valid: true})
	}
	ok("version 3", func(*GGUF) {})
	ok("version 2", func(g *GGUF) { g.Version = 2 })
	ok("alignment 64", func(g *GGUF) {
		g.Pairs = append(g.Pairs, Pair("general.alignment", 4, le(nil).u32(64)))
		g.Align, g.Data = 64, 64+64+34
		g.Tensors[1].Offset, g.Tensors[2].Offset = 64, 128
	})
	ok("alignment 8", func(g *GGUF) {
		g.Pairs = append(g.Pairs, Pair("general.alignment", 4, le(nil).u32(8)))
		g.Align, g.Data = 8, 24+32+34
		g.Tensors[1].Offset, g.Tensors[2].Offset = 24, 56
	})
	ok("four dimensions", func(g *GGUF) { g.Tensors[1].Dims = []uint64{4, 2, 1, 2} })
	ok("padded at the end", func(g *GGUF) { g.Data = 128 })
	ok("many types", func(g *GGUF) {
		g.Tensors, g.Data = nil, 0
		for _, t := range []struct{ kind, elements, bytes int }{{0, 8, 32}, {1, 16, 32}, {2, 32, 18}, {3, 32, 20}, {6, 32, 22}, {7, 32, 24}, {8, 32, 34},
			{10, 256, 84}, {11, 256, 110}, {12, 256, 144}, {13, 256, 176}, {14, 256, 210}, {15, 256, 292}, {16, 256, 66}, {17, 256, 74}, {18, 256, 98}, {19, 256, 50},
			{20, 32, 18}, {21, 256, 110}, {22, 256, 82}, {23, 256, 136}, {24, 1, 1}, {25, 1, 2}, {26, 1, 4}, {27, 1, 8}, {28, 1, 8}, {29, 256, 56}, {30, 1, 2},
			{34, 256, 54}, {35, 256, 66}, {39, 32, 17}, {40, 64, 36}, {41, 128, 18}} {
			g.Tensors = append(g.Tensors, GGUFTensor{Name: fmt.Sprintf("t%d", t.kind), Dims: []uint64{uint64(t.elements)}, Type: uint32(t.kind), Offset: uint64(g.Data)})
			g.Data += (t.bytes + 31) / 32 * 32
		}
	})
	return cases
}

func malformedGGUF() []Case {
	var cases []Case
	bad := func(name string, change func(g *GGUF)) {
		g := sound()
		change(&g)
		cases = append(cases, Case{Name: name, File: g.Encode()})
	}
	strict := func(name, why string, change func(g *GGUF)) {
		bad(name, change)
		cases[len(cases)-1].Stricter = why
	}
	raw := func(name string, b []byte) { cases = append(cases, Case{Name: name, File: b}) }
	whole := sound().Encode()
	raw("GGML", append([]byte("ggml"), whole[4:]...))
	raw("GGJT", append([]byte("tjgg"), whole[4:]...))
	raw("lower case", append([]byte("gguf"), whole[4:]...))
	for _, v := range []uint32{0, 1, 4, 5, 255, 1 << 16, 2 << 24, 3 << 24, math.MaxUint32} {
		bad(fmt.Sprintf("version %d", v), func(g *GGUF) { g.Version = v })
	}
	four := uint64(4)
	strict("4 tensors", "the padding before the data is no tensor", func(g *GGUF) { g.tensorCount = &four })
	for _, n := range []uint64{5, 1000, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 60, 1 << 61, 1<<62 + 1, 1 << 63, math.MaxUint64} {
		bad(fmt.Sprintf("%d tensors", n), func(g *GGUF) { g.tensorCount = &n })
		bad(fmt.Sprintf("%d tensors and no data", n), func(g *GGUF) { g.tensorCount, g.Data = &n, 0 })
	}
	for _, n := range []uint64{16, 17, 1000, 1 << 20, 1 << 31, 1 << 32, 1 << 40, 1 << 60, 1 << 61, 1<<62 + 1, 1 << 63, math.MaxUint64} {
		bad(fmt.Sprintf("%d pairs", n), func(g *GGUF) { g.pairCount = &n })
	}
	lengths := []uint64{1 << 10, 1 << 20, 64<<20 + 1, 1 << 31, 1 << 32, 1 << 60, 1 << 61, 1 << 62, 1<<63 - 8, 1 << 63, math.MaxUint64 - 8, math.MaxUint64}
	for _, n := range lengths {
		bad(fmt.Sprintf("key of %d bytes", n), func(g *GGUF) { g.Pairs[0] = le(nil).u64(n).more([]byte("key")) })
		bad(fmt.Sprintf("string of %d bytes", n), func(g *GGUF) { g.Pairs[0] = Pair("s", 8, le(nil).u64(n).more([]byte("value"))) })
		bad(fmt.Sprintf("array of %d numbers", n), func(g *GGUF) { g.Pairs[0] = Pair("s", 9, le(nil).u32(10).u64(n).u64(1)) })
		bad(fmt.Sprintf("array of %d strings", n), func(g *GGUF) { g.Pairs[0] = Pair("s", 9, le(nil).u32(8).u64(n).str("one")) })
		bad(fmt.Sprintf("array with a string of %d bytes", n), func(g *GGUF) { g.Pairs[0] = Pair("s", 9, le(nil).u32(8).u64(2).str("one").u64(n)) })
		bad(fmt.Sprintf("dimension of %d", n), func(g *GGUF) { g.Tensors[2].Dims[1] = n })
		bad(fmt.Sprintf("dimensions of %d", n), func(g *GGUF) { g.Tensors[2].Dims = []uint64{n, n, n, n} })
		bad(fmt.Sprintf("dimension of %d at the start", n), func(g *GGUF) { g.Tensors[0].Dims[0] = n })
		why := ""
		if n > math.MaxUint64-64 {
			why = "the offset wraps around, to a place before the data"
		}
		strict(fmt.Sprintf("offset of %d", n), why, func(g *GGUF) { g.Tensors[1].Offset = n / 32 * 32 })
	}
	for _, kind := range []uint32{13, 14, 100, 1 << 31, math.MaxUint32} {
		bad(fmt.Sprintf("value of type %d", kind), func(g *GGUF) { g.Pairs[3] = Pair("x", kind, le(nil).u64(1)) })
		bad(fmt.Sprintf("array of type %d", kind), func(g *GGUF) { g.Pairs[3] = Pair("x", 9, le(nil).u32(kind).u64(1).u64(1)) })
	}
	for _, kind := range []uint32{4, 5, 31, 33, 36, 37, 38, 1000, math.MaxUint32} {
		bad(fmt.Sprintf("tensor of type %d", kind), func(g *GGUF) { g.Tensors[0].Type = kind })
	}
	for _, a := range []uint32{0, 3, 31, 33, 1<<31 + 1, math.MaxUint32} {
		bad(fmt.Sprintf("alignment %d", a), func(g *GGUF) { g.Pairs = append(g.Pairs, Pair("general.alignment", 4, le(nil).u32(a))) })
	}
	for _, a := range []uint32{1 << 21, 1 << 30, 1 << 31} {
		bad(fmt.Sprintf("alignment %d", a), func(g *GGUF) { g.Pairs = append(g.Pairs, Pair("general.alignment", 4, le(nil).u32(a))) })
	}
	strict("alignment of 2 MiB and no data", "nobody needs so much, and padding costs memory", func(g *GGUF) {
		g.Tensors, g.Data = nil, 0
		g.Pairs = append(g.Pairs, Pair("general.alignment", 4, le(nil).u32(1<<21)))
	})
	bad("alignment of another type", func(g *GGUF) { g.Pairs = append(g.Pairs, Pair("general.alignment", 10, le(nil).u64(32))) })
	bad("alignment twice", func(g *GGUF) {
		p := Pair("general.alignment", 4, le(nil).u32(32))
		g.Pairs = append(g.Pairs, p, p)
	})
	bad("key twice", func(g *GGUF) { g.Pairs = append(g.Pairs, g.Pairs[4]) })
	bad("key that is not UTF-8", func(g *GGUF) { g.Pairs[0] = Pair("a\xff", 0, []byte{1}) })
	bad("tensor twice", func(g *GGUF) { g.Tensors[1].Name = g.Tensors[0].Name })
	bad("tensor name that is not UTF-8", func(g *GGUF) { g.Tensors[0].Name = "a\xc3" })
	strict("tensor name with a zero byte", "ggml keeps the part before it", func(g *GGUF) { g.Tensors[0].Name = "a\x00b" })
	strict("tensor name over 64 KiB", "bounded memory", func(g *GGUF) { g.Tensors[0].Name = strings.Repeat("n", 64<<10+1) })
	strict("five dimensions", "ggml has four", func(g *GGUF) { g.Tensors[1].Dims = []uint64{8, 2, 1, 1, 1} })
	strict("array of arrays", "ggml has none", func(g *GGUF) { g.Pairs[0] = Pair("a", 9, le(nil).u32(9).u64(1).u32(0).u64(1).more([]byte{1})) })
	bad("rows that end within a block", func(g *GGUF) { g.Tensors[2].Dims = []uint64{16, 2} })
	bad("a tensor that ends within a block", func(g *GGUF) { g.Tensors[2].Dims = []uint64{33, 1} })
	strict("offset that is not aligned", "ggml demands it", func(g *GGUF) { g.Tensors[1].Offset = 31 })
	strict("overlap", "ggml demands that a tensor starts where the one before it ends", func(g *GGUF) { g.Tensors[1].Offset = 0 })
	strict("tensors out of order", "ggml demands that a tensor starts where the one before it ends", func(g *GGUF) {
		g.Tensors[0], g.Tensors[1] = g.Tensors[1], g.Tensors[0]
	})
	bad("hole and no data for it", func(g *GGUF) { g.Tensors[2].Offset += 32 })
	strict("hole", "ggml demands that a tensor starts where the one before it ends", func(g *GGUF) {
		g.Tensors[2].Offset += 32
		g.Data += 32
	})
	bad("one byte short", func(g *GGUF) { g.Data-- })
	bad("no data", func(g *GGUF) { g.Data = 0 })
	return cases
}
