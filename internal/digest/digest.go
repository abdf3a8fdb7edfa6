// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package digest chooses the SHA-256 that content is hashed with.
//
// In FIPS 140 mode that is the standard library, always. Elsewhere it is
// sha256-simd, which equals the standard library on processors with SHA
// extensions and has AVX-512 code for those without.
package digest

import (
	"crypto/fips140"
	"crypto/sha256"
	"hash"

	simd "github.com/minio/sha256-simd"
)

// Size is the length of a digest in bytes.
const Size = sha256.Size

var fips = fips140.Enabled()

// New returns a running SHA-256.
func New() hash.Hash {
	if fips {
		return sha256.New()
	}
	return simd.New()
}

// Sum returns the SHA-256 of b.
func Sum(b []byte) [Size]byte {
	if fips {
		return sha256.Sum256(b)
	}
	return simd.Sum256(b)
}
