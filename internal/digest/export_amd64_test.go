// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !nolanes && !purego

package digest

import "sync"

// Distrust forgets what the self-test found.
func Distrust() {
	tested = sync.Once{}
	broken.Store(false)
}

// Defect makes every block function wrong, until it is called again.
func Defect() { initial[3] ^= 1 << 7 }

// Handover returns Lanes that use sixteen lanes for n messages or more and pairs
// for fewer, as on processors where either pays.
func Handover(n int) *Lanes { return &Lanes{kernels: kernels{wideFrom: n, pairs: true}} }

const CheckEvery = checkEvery

// Both reports whether a Blob hashes groups of parts in lanes here.
func Both() bool {
	k, _ := kernelsFor(Auto)
	return k.both(sixteen)
}

// Confirms appends parts to a Blob that holds 100 bytes, changes a bit of the
// digest of one of them, or of what the Blob became with it, and returns what the
// check says.
func Confirms(parts [][]byte, watched int, wrongPart, wrongBlob bool) bool {
	var m paired
	m.reset()
	m.write(make([]byte, 100))
	before, after, sums := m, m, make([][Size]byte, len(parts))
	if len(parts) == 1 {
		sums[0] = m.part(parts[0])
		after = m
	} else {
		k, _ := kernelsFor(Auto)
		before, after = m.parts(k, sums, parts, watched)
	}
	if wrongPart {
		sums[watched][31] ^= 1
	}
	if wrongBlob {
		after.state[7] ^= 1
	}
	return before.confirms(parts[watched], sums[watched], after)
}
