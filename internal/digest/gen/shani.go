// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Orders of PSHUFD, of the four words of a register.
const (
	reverse   = 0b00_01_10_11
	upperHalf = 0b00_00_11_10 // to the lower half
)

// variables are a to h in the order that SHA256RNDS2 wants them.
type variables struct {
	abef, cdgh VecVirtual
	saved      Mem
}

// stream is one message that is hashed with the SHA extensions.
type stream struct {
	variables
	data Register
	msg  [4]VecVirtual
}

// shaNI writes blocksSHANI. One message leaves the unit idle for half of the
// time, since every SHA256RNDS2 waits for the one before; the steps of a second
// message fill the gaps.
func shaNI(constants Mem) {
	TEXT("blocksSHANI", NOSPLIT, "func(state *[2][8]uint32, data *[2]*byte, blocks int)")
	Pragma("noescape")
	Doc("blocksSHANI hashes blocks blocks of 64 bytes from either data pointer into the",
		"state with the same number. It needs the SHA extensions and SSSE3.")
	state := Mem{Base: Load(Param("state"), GP64())}
	pointers := Mem{Base: Load(Param("data"), GP64())}
	blocks := Load(Param("blocks"), GP64())
	k := GP64()
	LEAQ(constants, k)
	mask := XMM()
	MOVOU(swapWords128, mask)

	var streams [2]*stream
	for i := range streams {
		s := &stream{variables: pack(state.Offset(32 * i)), data: GP64()}
		MOVQ(pointers.Offset(8*i), s.data)
		for j := range s.msg {
			s.msg[j] = XMM()
		}
		streams[i] = s
	}

	Label("block")
	TESTQ(blocks, blocks)
	JE(LabelRef("done"))
	for _, s := range streams {
		s.begin()
	}
	for group := range rounds / 4 {
		for _, s := range streams {
			fourRounds(s, group, mask, Mem{Base: k, Disp: 16 * group})
		}
	}
	for _, s := range streams {
		s.end()
		ADDQ(Imm(blockSize), s.data)
	}
	DECQ(blocks)
	JMP(LabelRef("block"))

	Label("done")
	for i, s := range streams {
		s.unpack(state.Offset(32 * i))
	}
	RET()
}

// fourRounds is a quarter of steps 1 and 3 of FIPS 180-4 §6.2.2 for sixteen
// words: it uses the words of one register and computes those of the next.
func fourRounds(s *stream, group int, mask Register, k Mem) {
	before, now, next := s.msg[(group+3)%4], s.msg[group%4], s.msg[(group+1)%4]
	if group < 4 {
		MOVOU(Mem{Base: s.data, Disp: 16 * group}, now)
		PSHUFB(mask, now)
	}
	MOVOU(k, X0) // SHA256RNDS2 takes W + K from X0
	PADDD(now, X0)
	SHA256RNDS2(X0, s.abef, s.cdgh)
	if group >= 3 && group < 15 {
		seventh := XMM() // W(t-7)
		MOVO(now, seventh)
		PALIGNR(Imm(4), before, seventh)
		PADDD(seventh, next)
		SHA256MSG2(now, next) // σ1 of W(t-2)
	}
	PSHUFD(Imm(upperHalf), X0, X0)
	SHA256RNDS2(X0, s.cdgh, s.abef)
	if group >= 1 && group < 13 {
		SHA256MSG1(now, before) // W(t-16) and σ0 of W(t-15)
	}
}

// begin keeps the hash value that a block adds to.
func (v variables) begin() {
	MOVOU(v.abef, v.saved)
	MOVOU(v.cdgh, v.saved.Offset(16))
}

// end is step 4 of FIPS 180-4 §6.2.2.
func (v variables) end() {
	for i, x := range []VecVirtual{v.abef, v.cdgh} {
		t := XMM()
		MOVOU(v.saved.Offset(16*i), t)
		PADDD(t, x)
	}
}

// pack loads a to h. SHA256RNDS2 wants a in the highest word.
func pack(state Mem) variables {
	v := variables{abef: XMM(), cdgh: XMM(), saved: AllocLocal(32)}
	MOVOU(state, v.cdgh) // a b c d
	efgh := XMM()
	MOVOU(state.Offset(16), efgh)
	MOVO(v.cdgh, v.abef)
	PUNPCKLQDQ(efgh, v.abef) // a b e f
	PUNPCKHQDQ(efgh, v.cdgh) // c d g h
	PSHUFD(Imm(reverse), v.abef, v.abef)
	PSHUFD(Imm(reverse), v.cdgh, v.cdgh)
	return v
}

// unpack is the inverse of pack.
func (v variables) unpack(state Mem) {
	PSHUFD(Imm(reverse), v.abef, v.abef) // a b e f
	PSHUFD(Imm(reverse), v.cdgh, v.cdgh) // c d g h
	abcd := XMM()
	MOVO(v.abef, abcd)
	PUNPCKLQDQ(v.cdgh, abcd)
	PUNPCKHQDQ(v.cdgh, v.abef) // e f g h
	MOVOU(abcd, state)
	MOVOU(v.abef, state.Offset(16))
}
