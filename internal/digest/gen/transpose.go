// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// rows reads the next block of lane i, sixteen words, into a register.
type rows func(i int, row Op)

// transpose returns sixteen registers that hold the same word of all lanes.
func transpose(read rows, mask Op) (words [lanes]Op) {
	for n := 0; n < lanes; n += 4 {
		copy(words[n:], quarters(read, n, mask, virtual))
	}
	for j := range 4 {
		c := [4]Op{words[j], words[4+j], words[8+j], words[12+j]}
		matrix(&c, virtual)
		words[j], words[4+j], words[8+j], words[12+j] = c[0], c[1], c[2], c[3]
	}
	return words
}

// transposeInMemory is transpose with fewer registers.
func transposeInMemory(words [lanes]Op, read rows, mask Op, temporary registers) {
	for n := 0; n < lanes; n += 4 {
		for j, r := range quarters(read, n, mask, temporary) {
			VMOVDQA32(r, words[n+j])
		}
	}
	for j := range 4 {
		var c [4]Op
		for n := range c {
			c[n] = temporary()
			VMOVDQA32(words[4*n+j], c[n])
		}
		matrix(&c, temporary)
		for n, r := range c {
			VMOVDQA32(r, words[4*n+j])
		}
	}
}

// apart reads lanes that are apart in memory.
func apart(data Mem, position Register) rows {
	return func(i int, row Op) {
		lane := GP64()
		MOVQ(data.Offset(8*i), lane)
		block := Mem{Base: lane, Index: position, Scale: 1}
		VMOVDQU32(block, row)
		PREFETCHT0(block.Offset(ahead))
	}
}

// following reads lanes that follow each other.
func following(first Register) rows {
	return func(i int, row Op) { VMOVDQU32(Mem{Base: first, Disp: blockSize * i}, row) }
}

// quarters reads the lanes n to n+3, makes their words little-endian, and
// transposes inside each quarter of a register: afterwards quarter q of register
// j holds word 4*q+j of the four lanes.
func quarters(read rows, n int, mask Op, temporary registers) []Op {
	r := make([]Op, 4)
	for i := range r {
		r[i] = temporary()
		read(n+i, r[i])
		VPSHUFB(mask, r[i], r[i])
	}
	interleave(VPUNPCKLDQ, VPUNPCKHDQ, &r[0], &r[1], temporary)
	interleave(VPUNPCKLDQ, VPUNPCKHDQ, &r[2], &r[3], temporary)
	interleave(VPUNPCKLQDQ, VPUNPCKHQDQ, &r[0], &r[2], temporary)
	interleave(VPUNPCKLQDQ, VPUNPCKHQDQ, &r[1], &r[3], temporary)
	r[1], r[2] = r[2], r[1]
	return r
}

// matrix transposes the quarters of four registers, which hold the same words
// modulo 4 of the lanes 0 to 3, 4 to 7 and so on.
func matrix(c *[4]Op, temporary registers) {
	even := func(ops ...Op) { VSHUFI32X4(append([]Op{U8(0b10_00_10_00)}, ops...)...) }
	odd := func(ops ...Op) { VSHUFI32X4(append([]Op{U8(0b11_01_11_01)}, ops...)...) }
	interleave(even, odd, &c[0], &c[1], temporary) // even: quarters 0 and 2 of both, odd: 1 and 3
	interleave(even, odd, &c[2], &c[3], temporary)
	interleave(even, odd, &c[0], &c[2], temporary) // now 0 and 2 …
	interleave(even, odd, &c[1], &c[3], temporary) // … 1 and 3
}

// interleave replaces x by first(x, y) and y by second(x, y).
func interleave(first, second func(...Op), x, y *Op, temporary registers) {
	result := temporary()
	first(*y, *x, result)
	second(*y, *x, *y)
	*x = result
}
