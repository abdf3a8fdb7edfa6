// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/opencontainers/go-digest"
)

// ProofSize is the length of a proof in bytes.
const ProofSize = 12 + proofClaim + 16

const proofClaim = 32 + 8

// A Prover lets somebody who writes an artifact recognise what it noted on a disk
// before it was interrupted. A proof can only be made by a holder of the data
// key, for one artifact and one position. It is safe for concurrent use.
type Prover struct {
	aead     cipher.AEAD
	manifest []byte
}

// NewProver derives the proof key of one artifact version from its data key.
func NewProver(k *Key, artifactID [16]byte, manifest digest.Digest) (*Prover, error) {
	key, err := k.derive("modelsec/v1/resume", artifactID)
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	sum, err := hex.DecodeString(manifest.Encoded())
	if err != nil || len(sum) != proofClaim-8 {
		return nil, fmt.Errorf("encrypt: manifest %q is not a sha256 digest", manifest)
	}
	return &Prover{aead: gcm(&key), manifest: sum}, nil
}

// Prove returns the proof that content is what belongs at position. The content
// is associated data, so a proof costs one pass of GHASH and no copy.
func (p *Prover) Prove(position uint64, content []byte) []byte {
	return p.aead.Seal(make([]byte, 0, ProofSize), nil, p.claim(position), content)
}

// Check reports whether proof was made for this content at this position.
func (p *Prover) Check(position uint64, content, proof []byte) bool {
	claim, err := p.aead.Open(nil, nil, proof, content)
	return err == nil && bytes.Equal(claim, p.claim(position))
}

func (p *Prover) claim(position uint64) []byte {
	return binary.BigEndian.AppendUint64(bytes.Clone(p.manifest), position)
}
