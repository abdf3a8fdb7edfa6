// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package digest chooses the SHA-256 that content is hashed with.
//
// New and Sum hash one message. In FIPS 140 mode that is the standard library,
// always. Elsewhere it is sha256-simd, which equals the standard library on
// processors with SHA extensions and has AVX-512 code for those without.
//
// Lanes hashes independent messages, the segments of a model, several at a time
// on one core: every step of SHA-256 waits for the one before it, so a single
// message leaves most of a core idle. There are two ways:
//
//   - Pairs takes two messages through the SHA extensions in turns. The unit
//     accepts a new instruction in half of the time, or less, that it takes for
//     one.
//   - Sixteen computes with 512-bit registers of sixteen 32-bit words. Word i
//     of every register belongs to message i, so a round is the text of
//     FIPS 180-4 §6.2.2 with registers for variables.
//
// Blob is for writers, which need the digest of a layer and those of its segments.
// Without AVX-512 the layer and the segment at hand are a pair. With it sixteen
// segments are hashed in lanes while the layer, which is as long as all of them
// together, goes through the SHA extensions.
//
// # Layout of sixteen lanes
//
// blocksAVX512 keeps the working variables a to h in eight registers and
// sixteen words of the message schedule in sixteen more:
//
//	         word 0    word 1         word 15
//	a      │ a of 0  │ a of 1  │ … │ a of 15  │
//	…
//	h      │ h of 0  │ h of 1  │ … │ h of 15  │
//	W[0]   │ W0 of 0 │ W0 of 1 │ … │ W0 of 15 │
//	…
//	W[15]  │ W15 of 0│ …           │ W15 of 15│
//
// A block of a message is sixteen consecutive words in memory, a row, so the
// rows of sixteen messages are transposed first. Words are big-endian (§3.1):
// a shuffle reverses their bytes. After round t uses W[t mod 16], that register
// becomes W(t+16) (§6.2.2 step 1), and instead of moving a to b, b to c and so on
// (step 3) the generator moves the names. Sixteen rounds bring all names back,
// which makes a loop of them. Ch, Maj and the sums of three rotations (4.2–4.7)
// are one VPTERNLOGD each, whose table is the truth table of the function.
//
// # Layout of a pair
//
// SHA256RNDS2 does two rounds on a, b, e, f in one register and c, d, g, h in
// another, with the first of each in the highest word. Four words of the
// schedule share a register, and SHA256MSG1 and SHA256MSG2 compute the next
// four. See the description of these instructions by their makers.
//
// # Layout of both
//
// On Intel's processors SHA256MSG1 and SHA256MSG2 keep the units busy that lanes
// need. But the message schedule of a block does not depend on what came before:
// sixteen blocks of the layer are sixteen lanes as well, and their schedules are
// computed a batch ahead, in the manner above. What is left for the SHA
// extensions is SHA256RNDS2, one after the other, and the rest of the core is free
// meanwhile. A pair of words of one block is next to each other in memory, ready
// for SHA256RNDS2:
//
//	         bytes 0–7     bytes 8–15    …  bytes 56–63
//	first  │ block 0     │ block 1     │ … │ block 13
//	second │ block 2     │ block 3     │ … │ block 15
//
// This code uses the upper sixteen vector registers for lanes, and memory for the
// two schedules: the lower ones are those of the SHA extensions, whose instructions
// would keep whatever is in the upper bits.
//
// The assembly is written by the module in gen, which computes the constants
// from their definition and names the section behind every step. The build tags
// nolanes and purego leave it out.
//
// # Trust
//
// Nobody has validated this assembly, so it is watched (K46). Before its first use
// each way computes known answers. Afterwards one message in 1,024 is hashed a
// second time by the standard library; of a Blob one part in 1,024, and how that part
// moved the Blob on. If anything differs, lanes are off for the rest of the process, and
// whoever uses one gets ErrLanes and must fail.
package digest

//go:generate go -C gen run . -out ../blocks_amd64.s -stubs ../blocks_amd64.go -pkg digest
