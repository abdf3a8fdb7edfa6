// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"

	"github.com/modelsec/modelsec-go/internal/floe"
)

const keySize = 32

// redacted stands wherever a secret would otherwise be formatted.
const redacted = "encrypt: redacted key"

// A Key is the data key of one version of one artifact (FORMAT.md §6). It lives
// in a page of its own, which is locked and kept out of core dumps where the
// system allows, and is wiped by Close. It is safe for concurrent use; after
// Close its methods return fs.ErrClosed. No way of formatting a Key shows it.
type Key struct{ dek *secret }

// NewKey returns a random Key, for one push and never for two.
func NewKey() *Key {
	var b [keySize]byte
	defer clear(b[:])
	rand.Read(b[:])
	return keyFrom(b[:])
}

// keyFrom copies b into a Key. The caller wipes b.
func keyFrom(b []byte) *Key {
	if len(b) != keySize {
		panic(fmt.Sprintf("encrypt: a key has %d bytes, not %d", keySize, len(b)))
	}
	return &Key{newSecret(b)}
}

// Clone returns a copy of the key in a page of its own, which is closed by
// itself.
func (k *Key) Clone() (*Key, error) {
	var out *Key
	err := k.dek.use(func(b []byte) error {
		out = keyFrom(b)
		return nil
	})
	return out, err
}

// Close wipes the key, after methods that are using it. Sealers and openers
// made from it stay usable. Closing twice is fine.
func (k *Key) Close() error {
	k.dek.close()
	return nil
}

// derive is E(label, rest) of FORMAT.md §6.
func (k *Key) derive(label string, artifactID [16]byte, rest ...byte) (out [keySize]byte, err error) {
	err = k.dek.use(func(key []byte) error {
		out = expand(key, label, artifactID, rest...)
		return nil
	})
	return out, err
}

func expand(key []byte, label string, artifactID [16]byte, rest ...byte) [keySize]byte {
	info := label + "\x00" + string(artifactID[:]) + string(rest)
	out, err := hkdf.Expand(sha512.New384, key, info, keySize)
	if err != nil {
		panic("encrypt: HKDF-Expand: " + err.Error()) // key and output sizes are constants
	}
	defer clear(out)
	return [keySize]byte(out)
}

// Commitment returns the public value that binds an artifact to this key
// (FORMAT.md §6). It panics on a closed Key.
func (k *Key) Commitment(artifactID [16]byte) [32]byte {
	c, err := k.derive("modelsec/v1/commit", artifactID)
	if err != nil {
		panic(err.Error())
	}
	return c
}

// CheckCommitment returns [ErrKeyMismatch] unless commitment is the one of this
// key. It compares in constant time.
func (k *Key) CheckCommitment(artifactID [16]byte, commitment [32]byte) error {
	c, err := k.derive("modelsec/v1/commit", artifactID)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(c[:], commitment[:]) != 1 {
		return fmt.Errorf("%w: wrong commitment", ErrKeyMismatch)
	}
	return nil
}

// SealIndex encrypts the section of the index header that lists the files
// (FORMAT.md §6, sealed). The result is nonce || ciphertext || tag.
func (k *Key) SealIndex(artifactID [16]byte, plaintext []byte) ([]byte, error) {
	key, err := k.derive(indexLabel, artifactID)
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	return gcm(&key).Seal(nil, nil, plaintext, sectionAAD(indexLabel, artifactID)), nil
}

// OpenIndex decrypts what SealIndex made, or returns [ErrDecrypt].
func (k *Key) OpenIndex(artifactID [16]byte, sealed []byte) ([]byte, error) {
	key, err := k.derive(indexLabel, artifactID)
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	out, err := gcm(&key).Open(nil, nil, sealed, sectionAAD(indexLabel, artifactID))
	if err != nil {
		return nil, fmt.Errorf("sealed section of the index: %w", ErrDecrypt)
	}
	return out, nil
}

const indexLabel = "modelsec/v1/index"

func sectionAAD(label string, artifactID [16]byte, rest ...byte) []byte {
	return []byte(label + "\x00" + string(artifactID[:]) + string(rest))
}

// gcm returns AES-256-GCM with random nonces: nonce || ciphertext || tag.
func gcm(key *[keySize]byte) cipher.AEAD {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("encrypt: AES: " + err.Error()) // the key has 32 bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("encrypt: GCM: " + err.Error()) // the block is crypto/aes's own
	}
	return aead
}

// partKey makes a Key a [PartKeys] that holds the key of every layer.
func (k *Key) partKey(artifactID [16]byte, layer uint32) ([floe.KeySize]byte, error) {
	return k.derive("modelsec/v1/file", artifactID, binary.BigEndian.AppendUint32(nil, layer)...)
}

// String returns a fixed text.
func (k *Key) String() string { return redacted }

// GoString returns a fixed text.
func (k *Key) GoString() string { return redacted }

// Format writes a fixed text for every verb.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalJSON returns a fixed text.
func (k *Key) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns a fixed text.
func (k *Key) LogValue() slog.Value { return slog.StringValue(redacted) }
