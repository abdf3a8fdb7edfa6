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

// Confirms appends p to a Blob that holds 100 bytes, changes a bit of the digest
// of p, or of what the Blob has become, and returns what the check says.
func Confirms(p []byte, wrongPart, wrongBlob bool) bool {
	var before paired
	before.reset()
	before.write(make([]byte, 100))
	after := before
	sum := after.part(p)
	if wrongPart {
		sum[31] ^= 1
	}
	if wrongBlob {
		after.state[7] ^= 1
	}
	return before.confirms(p, sum, after)
}
