// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import "math/big"

// cubeRoots returns "the first thirty-two bits of the fractional parts of the
// cube roots of the first sixty-four prime numbers" (FIPS 180-4 §4.2.2). To
// compute them leaves no table to mistype.
func cubeRoots() [rounds]uint32 {
	var k [rounds]uint32
	prime := int64(1)
	for t := range k {
		for prime++; !big.NewInt(prime).ProbablyPrime(0); prime++ {
		}
		// The largest r with r³ ≤ prime·2⁹⁶ is ∛prime·2³², rounded down.
		target := new(big.Int).Lsh(big.NewInt(prime), 96)
		r := new(big.Int)
		for bit := 36; bit >= 0; bit-- {
			next := new(big.Int).SetBit(r, bit, 1)
			if new(big.Int).Exp(next, big.NewInt(3), nil).Cmp(target) <= 0 {
				r = next
			}
		}
		k[t] = uint32(r.Uint64())
	}
	return k
}
