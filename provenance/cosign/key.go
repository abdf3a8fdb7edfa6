// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"
)

// ErrPassword is wrapped where a key file does not open. A wrong password and a
// damaged file cannot be told apart.
var ErrPassword = errors.New("wrong password, or a damaged key file")

// keyTypes are the PEM types of a private key under a password, the older first.
var keyTypes = []string{"ENCRYPTED COSIGN PRIVATE KEY", "ENCRYPTED SIGSTORE PRIVATE KEY"}

const (
	maxKeyFile = 64 << 10
	nonceSize  = 24
	boxKeySize = 32
	// maxSalt is twice what cosign writes.
	maxSalt = 64
)

// costs are those that cosign has ever written, as N of scrypt with r 8 and p 1.
// A key file names its own cost, and whoever wrote it may mean harm: the largest
// takes 128 MiB.
var costs = []int{1 << 15, 1 << 16, 1 << 17}

// keyFile is what the PEM block holds (go-securesystemslib's package encrypted).
type keyFile struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// IsKey reports whether text is a private key file as cosign writes it, which
// ParseKey opens.
func IsKey(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil && slices.Contains(keyTypes, block.Type)
}

// ParseKey opens a private key file as cosign generate-key-pair writes it. The
// key signs with provenance.KeySigner, or as sigstore.SignerOptions.Key. It takes
// up to 128 MiB of memory for a moment.
func ParseKey(text, password []byte) (crypto.Signer, error) {
	if len(text) > maxKeyFile {
		return nil, fmt.Errorf("cosign key: %d bytes, limit %d", len(text), maxKeyFile)
	}
	block, _ := pem.Decode(text)
	if block == nil || !slices.Contains(keyTypes, block.Type) {
		return nil, fmt.Errorf("cosign key: want PEM of type %q", keyTypes[1])
	}
	var f keyFile
	if err := json.Unmarshal(block.Bytes, &f); err != nil {
		return nil, fmt.Errorf("cosign key: %w", err)
	}
	switch p := f.KDF.Params; {
	case f.KDF.Name != "scrypt" || f.Cipher.Name != "nacl/secretbox":
		return nil, fmt.Errorf("cosign key: encrypted by %.40q with %.40q, want scrypt with nacl/secretbox", f.KDF.Name, f.Cipher.Name)
	case !slices.Contains(costs, p.N) || p.R != 8 || p.P != 1:
		return nil, fmt.Errorf("cosign key: scrypt with N=%d r=%d p=%d, want N of %v, r=8, p=1", p.N, p.R, p.P, costs)
	case len(f.KDF.Salt) == 0 || len(f.KDF.Salt) > maxSalt || len(f.Cipher.Nonce) != nonceSize:
		return nil, fmt.Errorf("cosign key: salt of %d bytes and nonce of %d, want 1 to %d and %d", len(f.KDF.Salt), len(f.Cipher.Nonce), maxSalt, nonceSize)
	}
	derived, err := scrypt.Key(password, f.KDF.Salt, f.KDF.Params.N, f.KDF.Params.R, f.KDF.Params.P, boxKeySize)
	if err != nil {
		return nil, fmt.Errorf("cosign key: %w", err)
	}
	defer clear(derived)
	der, ok := secretbox.Open(nil, f.Ciphertext, (*[nonceSize]byte)(f.Cipher.Nonce), (*[boxKeySize]byte)(derived))
	if !ok {
		return nil, fmt.Errorf("cosign key: %w", ErrPassword)
	}
	defer clear(der)
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("cosign key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("cosign key: %T cannot sign", key)
	}
	return signer, nil
}
