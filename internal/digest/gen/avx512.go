// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
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

// registers supplies registers for values that live for a few instructions.
type registers func() Op

// virtual leaves the choice to the allocator.
func virtual() Op { return ZMM() }

// avx512 writes blocksAVX512. Word i of a register belongs to lane i throughout:
// eight registers hold a to h, sixteen hold the message schedule.
func avx512(constants Mem) {
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
	VMOVDQU32(swapWords512, mask)
	var h [8]Op
	for i := range h {
		h[i] = ZMM()
		VMOVDQU32(state.Offset(4*lanes*i), h[i])
	}

	Label("block")
	CMPQ(position, end)
	JGE(LabelRef("done"))
	w := transpose(apart(data, position), mask)

	k, last := GP64(), GP64()
	LEAQ(constants, k)
	LEAQ(constants.Offset(4*(rounds-16)), last)
	Comment("Three times sixteen rounds, each replaces the word of the schedule that it used.")
	Label("rounds")
	for t := range 16 {
		round(rotated(h, t), w[t], Mem{Base: k, Disp: 4 * t}, virtual, func() {})
		schedule(w, t)
	}
	ADDQ(Imm(4*16), k)
	CMPQ(k, last)
	JLT(LabelRef("rounds"))
	Comment("The last sixteen rounds.")
	for t := range 16 {
		round(rotated(h, t), w[t], Mem{Base: k, Disp: 4 * t}, virtual, func() {})
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
func rotated(h [8]Op, t int) (v [8]Op) {
	for i := range v {
		v[i] = h[(i+64-t)%8]
	}
	return v
}

// round is step 3 of FIPS 180-4 §6.2.2. It leaves T1 + T2 in h, which is a of
// the next round, and d + T1 in d. Three times it makes room for other work.
func round(v [8]Op, w Op, k Mem, temporary registers, other func()) {
	a, b, c, d, e, f, g, h := v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
	VPADDD_BCST(k, h, h)
	VPADDD(w, h, h)
	ch := temporary()
	VMOVDQA32(e, ch)
	VPTERNLOGD(U8(tableCh), g, f, ch)
	VPADDD(ch, h, h)
	other()
	VPADDD(xorRotated(e, 6, 11, 25, temporary), h, h) // Σ1, (4.5)
	VPADDD(h, d, d)
	other()
	maj := temporary()
	VMOVDQA32(a, maj)
	VPTERNLOGD(U8(tableMaj), c, b, maj)
	VPADDD(maj, h, h)
	VPADDD(xorRotated(a, 2, 13, 22, temporary), h, h) // Σ0, (4.4)
	other()
}

// schedule replaces word t of the schedule, modulo 16, by word t+16: step 1 of
// §6.2.2.
func schedule(w [16]Op, t int) { expand(w, t, w[t], virtual) }

// expand makes word t+16 of the schedule of word t, which is in sum.
func expand(w [16]Op, t int, sum Op, temporary registers) {
	at := func(i int) Op { return w[(t+i)%16] }
	VPADDD(at(9), sum, sum)
	VPADDD(xorShifted(at(1), 7, 18, 3, temporary), sum, sum)    // σ0, (4.6)
	VPADDD(xorShifted(at(14), 17, 19, 10, temporary), sum, sum) // σ1, (4.7)
}

// xorRotated returns ROTR p(x) ⊕ ROTR q(x) ⊕ ROTR r(x).
func xorRotated(x Op, p, q, r uint8, temporary registers) Op {
	third := temporary()
	VPRORD(U8(r), x, third)
	return xorTwo(x, p, q, third, temporary)
}

// xorShifted returns ROTR p(x) ⊕ ROTR q(x) ⊕ SHR s(x).
func xorShifted(x Op, p, q, s uint8, temporary registers) Op {
	third := temporary()
	VPSRLD(U8(s), x, third)
	return xorTwo(x, p, q, third, temporary)
}

func xorTwo(x Op, p, q uint8, third Op, temporary registers) Op {
	first, second := temporary(), temporary()
	VPRORD(U8(p), x, first)
	VPRORD(U8(q), x, second)
	VPTERNLOGD(U8(tableXor), third, second, first)
	return first
}
