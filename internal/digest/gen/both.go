// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// The upper sixteen registers, which instructions without a VEX prefix do not
// have: were there anything in the upper bits of the others, those of the SHA
// extensions would have to carry it along.
var (
	inLanes     = [8]Op{Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23} // a to h
	temporaries = [8]Op{Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}
)

// inTurn supplies the temporaries in turn. No value lives until its register's
// turn comes again.
func inTurn() registers {
	n := 0
	return func() Op {
		n++
		return temporaries[(n-1)%len(temporaries)]
	}
}

// batch is how many bytes of the chain go with one block of every lane.
const batch = lanes * blockSize

// chain is a message as long as all lanes together. One register has the same
// word of sixteen of its blocks: schedules do not depend on what came before, so
// those of the next batch are computed in lanes. Only its rounds are done one
// after the other, by SHA256RNDS2.
type chain struct {
	variables
	next  Register  // the batch whose schedules are computed
	last  Register  // the last one
	words [lanes]Op // of these schedules
	sums  Register  // W + K of the batch before, which is hashed
	ready Register  // W + K of next
}

// sumsSize is the memory for W + K of one batch. Each pair of words has two
// registers: the eight bytes of block 4q+r are in quarter q of the first or, for
// r > 1, the second, in the upper half for odd r.
const sumsSize = rounds / 2 * 2 * batch / lanes

// both writes blocksBoth. One message leaves most of a core idle, whatever the
// instructions, since every round waits for the one before; lanes fill the gaps.
func both(constants Mem) {
	TEXT("blocksBoth", 0, "func(state *[8][16]uint32, data *[16]*byte, blocks int, one *[8]uint32, next *byte)")
	Pragma("noescape")
	Doc("blocksBoth does what blocksAVX512 does, and meanwhile hashes sixteen times as",
		"many blocks from next into one. It needs AVX512F, AVX512BW, the SHA extensions",
		"and SSSE3. The number of blocks is not zero.")
	state := Mem{Base: Load(Param("state"), GP64())}
	data := Mem{Base: Load(Param("data"), GP64())}
	end := Load(Param("blocks"), GP64())
	SHLQ(Imm(6), end)
	position := GP64()
	XORQ(position, position)

	// What does not fit into registers is in memory, on lines of the cache.
	const memory = 2*lanes*64 + 2*sumsSize
	aligned := GP64()
	LEAQ(AllocLocal(memory+64), aligned)
	ADDQ(Imm(63), aligned)
	ANDQ(I8(-64), aligned)
	c := &chain{next: GP64(), last: GP64(), sums: GP64(), ready: GP64()}
	var w [lanes]Op
	for i := range w {
		w[i] = Mem{Base: aligned, Disp: 64 * i}
		c.words[i] = Mem{Base: aligned, Disp: 64 * (lanes + i)}
	}
	LEAQ(Mem{Base: aligned, Disp: 2 * lanes * 64}, c.sums)
	LEAQ(Mem{Base: aligned, Disp: 2*lanes*64 + sumsSize}, c.ready)
	VZEROUPPER()
	for i, r := range inLanes {
		VMOVDQU32(state.Offset(4*lanes*i), r)
	}
	c.variables = pack(Mem{Base: Load(Param("one"), GP64())})
	Load(Param("next"), c.next)
	MOVQ(end, c.last)
	SHLQ(Imm(4), c.last)
	LEAQ(Mem{Base: c.next, Index: c.last, Scale: 1, Disp: -batch}, c.last)

	k, last := GP64(), GP64()
	LEAQ(constants.Offset(4*(rounds-16)), last)
	c.prepare(constants, k, last)

	Label("block")
	transposeInMemory(w, apart(data, position), swapWords512, inTurn())
	c.swap()
	Comment("The schedules of the batch that follows, or once more of the last.")
	ADDQ(U32(batch), c.next)
	CMPQ(c.next, c.last)
	CMOVQGT(c.last, c.next)
	transposeInMemory(c.words, following(c.next), swapWords512, inTurn())

	LEAQ(constants, k)
	Comment("Three times sixteen rounds, each replaces the word of the schedule that it used.")
	Label("rounds")
	temporary, other := inTurn(), c.inSteps()
	for t := range 16 {
		sum := temporary()
		VMOVDQA32(w[t], sum)
		round(rotated(inLanes, t), sum, Mem{Base: k, Disp: 4 * t}, temporary, other)
		expandInMemory(w, t, temporary)
		other()
		if t%2 == 0 {
			c.sum(t, k, temporary)
		}
		expandInMemory(c.words, t, temporary)
	}
	c.advance(k)
	CMPQ(k, last)
	JLT(LabelRef("rounds"))
	Comment("The last sixteen rounds.")
	for t := range 16 {
		round(rotated(inLanes, t), w[t], Mem{Base: k, Disp: 4 * t}, temporary, other)
		other()
		if t%2 == 0 {
			c.sum(t, k, temporary)
		}
	}
	c.advance(k)
	for i, r := range inLanes {
		VPADDD(state.Offset(4*lanes*i), r, r)
		VMOVDQU32(r, state.Offset(4*lanes*i))
	}
	ADDQ(Imm(blockSize), position)
	CMPQ(position, end)
	JLT(LabelRef("block"))

	c.unpack(Mem{Base: Load(Param("one"), GP64())})
	VZEROUPPER()
	RET()
}

// prepare computes the schedules of the first batch.
func (c *chain) prepare(constants Mem, k, last Register) {
	transposeInMemory(c.words, following(c.next), swapWords512, inTurn())
	temporary := inTurn()
	LEAQ(constants, k)
	Label("prepare")
	for t := range 16 {
		if t%2 == 0 {
			c.sum(t, k, temporary)
		}
		expandInMemory(c.words, t, temporary)
	}
	c.advance(k)
	CMPQ(k, last)
	JLT(LabelRef("prepare"))
	for t := 0; t < 16; t += 2 {
		c.sum(t, k, temporary)
	}
	c.advance(k)
}

// sum adds the constants to the words t and t+1.
func (c *chain) sum(t int, k Register, temporary registers) {
	first, second := temporary(), temporary()
	for i, r := range []Op{first, second} {
		VMOVDQA32(c.words[t+i], r)
		VPADDD_BCST(Mem{Base: k, Disp: 4 * (t + i)}, r, r)
	}
	interleave(VPUNPCKLDQ, VPUNPCKHDQ, &first, &second, temporary)
	VMOVDQA32(first, Mem{Base: c.ready, Disp: 64 * t})
	VMOVDQA32(second, Mem{Base: c.ready, Disp: 64 * (t + 1)})
}

// inSteps does the rounds of four blocks, four at every call.
func (c *chain) inSteps() func() {
	n := 0
	return func() {
		block, group := n/(rounds/4)%4, n%(rounds/4)
		if group == 0 {
			c.begin()
		}
		first := Mem{Base: c.sums, Disp: 2*128*group + 64*(block/2) + 8*(block%2)}
		MOVQ(first, X0)
		SHA256RNDS2(X0, c.abef, c.cdgh)
		MOVQ(first.Offset(128), X0)
		SHA256RNDS2(X0, c.cdgh, c.abef)
		if group == rounds/4-1 {
			c.end()
		}
		n++
	}
}

// advance goes to the next sixteen words, and the next quarter of the sums.
func (c *chain) advance(k Register) {
	ADDQ(Imm(4*16), k)
	ADDQ(U32(sumsSize/4), c.ready)
	ADDQ(Imm(16), c.sums)
}

// swap makes the batch that is ready the one that is hashed.
func (c *chain) swap() {
	SUBQ(U32(sumsSize), c.ready)
	SUBQ(Imm(64), c.sums)
	XCHGQ(c.ready, c.sums)
}

// expandInMemory is expand for words in memory.
func expandInMemory(w [lanes]Op, t int, temporary registers) {
	sum := temporary()
	VMOVDQA32(w[t], sum)
	expand(w, t, sum, temporary)
	VMOVDQA32(sum, w[t])
}
