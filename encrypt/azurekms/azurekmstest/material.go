// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekmstest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

var errMaterial = errors.New("the operation failed")

// rsaKey is RSA-OAEP with SHA-256 and MGF1 with SHA-256.
type rsaKey struct{ private *rsa.PrivateKey }

func (k rsaKey) wrap(algorithm azkeys.EncryptionAlgorithm, b []byte) ([]byte, error) {
	if algorithm != azkeys.EncryptionAlgorithmRSAOAEP256 {
		return nil, errMaterial
	}
	return rsa.EncryptOAEP(sha256.New(), rand.Reader, &k.private.PublicKey, b, nil)
}

func (k rsaKey) unwrap(algorithm azkeys.EncryptionAlgorithm, b []byte) ([]byte, error) {
	if algorithm != azkeys.EncryptionAlgorithmRSAOAEP256 {
		return nil, errMaterial
	}
	return rsa.DecryptOAEP(sha256.New(), nil, k.private, b, nil)
}

// aesKey is AES key wrap (RFC 3394) with 256 bits.
type aesKey [32]byte

// initial is the value that shows that a key was unwrapped right.
var initial = bytes.Repeat([]byte{0xa6}, 8)

func (k *aesKey) block() cipher.Block {
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	return block
}

func (k *aesKey) wrap(algorithm azkeys.EncryptionAlgorithm, b []byte) ([]byte, error) {
	if algorithm != azkeys.EncryptionAlgorithmA256KW || len(b)%8 != 0 || len(b) < 16 {
		return nil, errMaterial
	}
	block, n := k.block(), len(b)/8
	out := append(bytes.Clone(initial), b...)
	var x [16]byte
	for t := range 6 * n {
		i := 8 * (t%n + 1)
		copy(x[:8], out[:8])
		copy(x[8:], out[i:i+8])
		block.Encrypt(x[:], x[:])
		binary.BigEndian.PutUint64(out[:8], binary.BigEndian.Uint64(x[:8])^uint64(t+1))
		copy(out[i:], x[8:])
	}
	return out, nil
}

func (k *aesKey) unwrap(algorithm azkeys.EncryptionAlgorithm, b []byte) ([]byte, error) {
	if algorithm != azkeys.EncryptionAlgorithmA256KW || len(b)%8 != 0 || len(b) < 24 {
		return nil, errMaterial
	}
	block, n := k.block(), len(b)/8-1
	out := bytes.Clone(b)
	var x [16]byte
	for t := 6*n - 1; t >= 0; t-- {
		i := 8 * (t%n + 1)
		binary.BigEndian.PutUint64(x[:8], binary.BigEndian.Uint64(out[:8])^uint64(t+1))
		copy(x[8:], out[i:i+8])
		block.Decrypt(x[:], x[:])
		copy(out[:8], x[:8])
		copy(out[i:], x[8:])
	}
	if !bytes.Equal(out[:8], initial) {
		return nil, errMaterial
	}
	return out[8:], nil
}
