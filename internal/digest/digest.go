// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

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
