// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Command gen writes the block functions of package digest: SHA-256 of sixteen
// messages side by side with AVX-512, and of two with the SHA extensions. Its
// comments name the sections of FIPS 180-4 whose text becomes code.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

const (
	blockSize = 64
	rounds    = 64
)

// Masks of PSHUFB that reverse the bytes of words.
var swapWords512, swapWords128 Mem

func main() {
	ConstraintExpr("!nolanes,!purego")
	constants := roundConstants()
	swapWords512, swapWords128 = swapMask("swapWords512", 64), swapMask("swapWords128", 16)
	avx512(constants)
	shaNI(constants)
	both(constants)
	Generate()
}

// roundConstants places K, the constants of FIPS 180-4 §4.2.2, in memory.
func roundConstants() Mem {
	table := GLOBL("roundConstants", RODATA|NOPTR)
	for t, k := range cubeRoots() {
		DATA(4*t, U32(k))
	}
	return table
}

// swapMask places the PSHUFB mask that reverses the bytes of every 32-bit
// word: messages are big-endian (FIPS 180-4 §3.1). The AVX-512 instruction
// wants it once for every 16 bytes of its register.
func swapMask(name string, size int) Mem {
	mask := GLOBL(name, RODATA|NOPTR)
	for i := 0; i < size; i += 8 {
		word := uint64(i%16) * 0x0101010101010101
		DATA(i, U64(word+0x0405060700010203))
	}
	return mask
}
