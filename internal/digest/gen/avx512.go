// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	lanes = 16
	// ahead is how far before its use a block is asked for. Sixteen streams are
	// more than the prefetchers of most processors follow.
	ahead = 8 * blockSize
)

// Truth tables of VPTERNLOGD. Bit x<<2|y<<1|z of a table is the result for bits
// x, y and z of its operands, of which x is the destination.
const (
	tableXor = 0b10010110 // x ⊕ y ⊕ z
	tableCh  = 0b11001010 // (x ∧ y) ⊕ (¬x ∧ z), FIPS 180-4 (4.2)
	tableMaj = 0b11101000 // (x ∧ y) ⊕ (x ∧ z) ⊕ (y ∧ z), (4.3)
)

// avx512 writes blocksAVX512. Word i of a register belongs to lane i throughout:
// eight registers hold a to h, sixteen hold the message schedule.
func avx512(constants Mem) {
	swap := swapMask("swapWords512", 64)

	TEXT("blocksAVX512", NOSPLIT, "func(state *[8][16]uint32, data *[16]*byte, blocks int)")
	Pragma("noescape")
	Doc("blocksAVX512 hashes blocks blocks of 64 bytes from every data pointer into the",
		"lane of state with the same number. It needs AVX512F and AVX512BW.")
	state := Mem{Base: Load(Param("state"), GP64())}
	data := Mem{Base: Load(Param("data"), GP64())}
	end := Load(Param("blocks"), GP64())
	SHLQ(Imm(6), end)
	position := GP64()
	XORQ(position, position)

	mask := ZMM()
	VMOVDQU32(swap, mask)
	var h [8]VecVirtual
	for i := range h {
		h[i] = ZMM()
		VMOVDQU32(state.Offset(4*lanes*i), h[i])
	}

	Label("block")
	CMPQ(position, end)
	JGE(LabelRef("done"))
	w := transpose(load(data, position, mask))

	k, last := GP64(), GP64()
	LEAQ(constants, k)
	LEAQ(constants.Offset(4*(rounds-16)), last)
	Comment("Three times sixteen rounds, each replaces the word of the schedule that it used.")
	Label("rounds")
	for t := range 16 {
		round(rotated(h, t), w[t], Mem{Base: k, Disp: 4 * t})
		schedule(w, t)
	}
	ADDQ(Imm(4*16), k)
	CMPQ(k, last)
	JLT(LabelRef("rounds"))
	Comment("The last sixteen rounds.")
	for t := range 16 {
		round(rotated(h, t), w[t], Mem{Base: k, Disp: 4 * t})
	}
	for i, r := range h {
		VPADDD(state.Offset(4*lanes*i), r, r)
		VMOVDQU32(r, state.Offset(4*lanes*i))
	}
	ADDQ(Imm(blockSize), position)
	JMP(LabelRef("block"))

	Label("done")
	VZEROUPPER()
	RET()
}

// rotated returns the working variables a to h of round t. Instead of moving
// every variable to the next (§6.2.2 step 3), their names move.
func rotated(h [8]VecVirtual, t int) (v [8]VecVirtual) {
	for i := range v {
		v[i] = h[(i+64-t)%8]
	}
	return v
}

// round is step 3 of FIPS 180-4 §6.2.2. It leaves T1 + T2 in h, which is a of
// the next round, and d + T1 in d.
func round(v [8]VecVirtual, w VecVirtual, k Mem) {
	a, b, c, d, e, f, g, h := v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
	VPADDD_BCST(k, h, h)
	VPADDD(w, h, h)
	ch := ZMM()
	VMOVDQA32(e, ch)
	VPTERNLOGD(U8(tableCh), g, f, ch)
	VPADDD(ch, h, h)
	VPADDD(xorRotated(e, 6, 11, 25), h, h) // Σ1, (4.5)
	VPADDD(h, d, d)
	maj := ZMM()
	VMOVDQA32(a, maj)
	VPTERNLOGD(U8(tableMaj), c, b, maj)
	VPADDD(maj, h, h)
	VPADDD(xorRotated(a, 2, 13, 22), h, h) // Σ0, (4.4)
}

// schedule replaces word t of the schedule, modulo 16, by word t+16: step 1 of
// §6.2.2.
func schedule(w [16]VecVirtual, t int) {
	at := func(i int) VecVirtual { return w[(t+i)%16] }
	VPADDD(at(9), w[t], w[t])
	VPADDD(xorShifted(at(1), 7, 18, 3), w[t], w[t])    // σ0, (4.6)
	VPADDD(xorShifted(at(14), 17, 19, 10), w[t], w[t]) // σ1, (4.7)
}

// xorRotated returns ROTR p(x) ⊕ ROTR q(x) ⊕ ROTR r(x).
func xorRotated(x VecVirtual, p, q, r uint8) VecVirtual {
	third := ZMM()
	VPRORD(U8(r), x, third)
	return xorTwo(x, p, q, third)
}

// xorShifted returns ROTR p(x) ⊕ ROTR q(x) ⊕ SHR s(x).
func xorShifted(x VecVirtual, p, q, s uint8) VecVirtual {
	third := ZMM()
	VPSRLD(U8(s), x, third)
	return xorTwo(x, p, q, third)
}

func xorTwo(x VecVirtual, p, q uint8, third VecVirtual) VecVirtual {
	first, second := ZMM(), ZMM()
	VPRORD(U8(p), x, first)
	VPRORD(U8(q), x, second)
	VPTERNLOGD(U8(tableXor), third, second, first)
	return first
}

// load reads the block at position of every lane, a lane to a register, and
// makes its words little-endian.
func load(data Mem, position Register, mask VecVirtual) (rows [lanes]VecVirtual) {
	for i := range rows {
		lane := GP64()
		MOVQ(data.Offset(8*i), lane)
		block := Mem{Base: lane, Index: position, Scale: 1}
		rows[i] = ZMM()
		VMOVDQU32(block, rows[i])
		VPSHUFB(mask, rows[i], rows[i])
		PREFETCHT0(block.Offset(ahead))
	}
	return rows
}

// transpose turns sixteen registers, each of which holds the sixteen words of a
// lane, into sixteen that hold the same word of all lanes.
func transpose(rows [16]VecVirtual) (words [16]VecVirtual) {
	// Inside each quarter of a register, so that afterwards quarter q of
	// rows[4*n+j] holds word 4*q+j of the lanes 4*n to 4*n+3.
	for n := 0; n < 16; n += 4 {
		r := rows[n : n+4]
		interleave(VPUNPCKLDQ, VPUNPCKHDQ, &r[0], &r[1])
		interleave(VPUNPCKLDQ, VPUNPCKHDQ, &r[2], &r[3])
		interleave(VPUNPCKLQDQ, VPUNPCKHQDQ, &r[0], &r[2])
		interleave(VPUNPCKLQDQ, VPUNPCKHQDQ, &r[1], &r[3])
		r[1], r[2] = r[2], r[1]
	}
	// Then the quarters themselves, as a matrix of four by four.
	for j := range 4 {
		c := [4]*VecVirtual{&rows[j], &rows[4+j], &rows[8+j], &rows[12+j]}
		even := func(ops ...Op) { VSHUFI32X4(append([]Op{U8(0b10_00_10_00)}, ops...)...) }
		odd := func(ops ...Op) { VSHUFI32X4(append([]Op{U8(0b11_01_11_01)}, ops...)...) }
		interleave(even, odd, c[0], c[1]) // even: quarters 0 and 2 of both, odd: 1 and 3
		interleave(even, odd, c[2], c[3])
		interleave(even, odd, c[0], c[2]) // now 0 and 2 …
		interleave(even, odd, c[1], c[3]) // … 1 and 3
		words[j], words[4+j], words[8+j], words[12+j] = *c[0], *c[1], *c[2], *c[3]
	}
	return words
}

// interleave replaces x by first(x, y) and y by second(x, y).
func interleave(first, second func(...Op), x, y *VecVirtual) {
	result := ZMM()
	first(*y, *x, result)
	second(*y, *x, *y)
	*x = result
}
