// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"crypto/fips140"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"

	"golang.org/x/crypto/scrypt"
)

const (
	labelRecipient = "MODELSEC RECIPIENT"
	labelIdentity  = "MODELSEC IDENTITY"
	labelEncrypted = "MODELSEC ENCRYPTED IDENTITY"

	// maxKeyFile bounds the text of a key file; the longest has 3 KiB.
	maxKeyFile = 16 << 10

	// writeLogN costs 128 MiB and less than a second. The reader's bounds
	// (FORMAT.md §8.7) keep a hostile file from asking for more than 1 GiB.
	writeLogN, minLogN, maxLogN = 17, 15, 20

	saltSize      = 16
	encryptedHead = 2 + saltSize
)

// PEM returns the public key as a key file (FORMAT.md §8.7).
func (r *HPKERecipient) PEM() string {
	return encodeKeyFile(labelRecipient, r.stanzaType, r.key.Bytes())
}

// PEM returns the private key as a key file that nothing protects
// (FORMAT.md §8.7). It is the one method that gives the key away.
func (i *HPKEIdentity) PEM() string {
	key := i.secret()
	defer clear(key)
	return encodeKeyFile(labelIdentity, i.recipient.stanzaType, key)
}

// secret returns a copy of the private key bytes.
func (i *HPKEIdentity) secret() []byte {
	b, err := i.key.Bytes()
	if err != nil {
		panic("encrypt: private key without bytes: " + err.Error()) // all of ours come from bytes
	}
	return bytes.Clone(b)
}

// ParseRecipient reads a public key from the text of a key file.
func ParseRecipient(s string) (*HPKERecipient, error) {
	stanzaType, data, err := decodeKeyFile(labelRecipient, s)
	if err != nil {
		return nil, err
	}
	row, err := suiteOf(stanzaType)
	if err != nil {
		return nil, err
	}
	key, err := row.kem.NewPublicKey(data)
	if err != nil {
		return nil, fmt.Errorf("encrypt: not a public key of type %s", stanzaType)
	}
	return &HPKERecipient{stanzaType, row, key}, nil
}

// ParseIdentity reads a private key from the text of a key file. One that is
// protected by a passphrase needs [ParseEncryptedIdentity].
func ParseIdentity(s string) (*HPKEIdentity, error) {
	stanzaType, data, err := decodeKeyFile(labelIdentity, s)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return identityFrom(stanzaType, data)
}

func identityFrom(stanzaType string, data []byte) (*HPKEIdentity, error) {
	row, err := suiteOf(stanzaType)
	if err != nil {
		return nil, err
	}
	key, err := row.kem.NewPrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("encrypt: not a private key of type %s", stanzaType)
	}
	return newIdentity(stanzaType, row, key), nil
}

// EncryptIdentity returns the private key as a key file that passphrase
// protects. It takes 128 MiB of memory for about half a second, and returns
// [ErrFIPS] while FIPS 140-3 is enforced, since scrypt is not approved.
func EncryptIdentity(i *HPKEIdentity, passphrase []byte) (string, error) {
	if len(passphrase) == 0 {
		return "", fmt.Errorf("encrypt: empty passphrase")
	}
	head := make([]byte, encryptedHead)
	head[0], head[1] = 1, writeLogN
	rand.Read(head[2:])
	key, err := stretch(passphrase, head)
	if err != nil {
		return "", err
	}
	defer clear(key[:])
	secret := i.secret()
	defer clear(secret)
	stanzaType := i.recipient.stanzaType
	return encodeKeyFile(labelEncrypted, stanzaType, gcm(&key).Seal(head, nil, secret, identityAAD(stanzaType))), nil
}

// ParseEncryptedIdentity reads a private key from a key file that passphrase
// protects. A wrong passphrase is [ErrDecrypt]. The file says what the attempt
// costs, at most 1 GiB of memory for a few seconds. It returns [ErrFIPS] while
// FIPS 140-3 is enforced.
func ParseEncryptedIdentity(s string, passphrase []byte) (*HPKEIdentity, error) {
	stanzaType, data, err := decodeKeyFile(labelEncrypted, s)
	if err != nil {
		return nil, err
	}
	if _, err := suiteOf(stanzaType); err != nil {
		return nil, err
	}
	if len(data) < encryptedHead || data[0] != 1 || data[1] < minLogN || data[1] > maxLogN {
		return nil, fmt.Errorf("encrypt: key file is not version 1 with a cost of %d to %d", minLogN, maxLogN)
	}
	key, err := stretch(passphrase, data[:encryptedHead])
	if err != nil {
		return nil, err
	}
	defer clear(key[:])
	secret, err := gcm(&key).Open(nil, nil, data[encryptedHead:], identityAAD(stanzaType))
	if err != nil {
		return nil, fmt.Errorf("key file: %w", ErrDecrypt)
	}
	defer clear(secret)
	return identityFrom(stanzaType, secret)
}

// stretch runs scrypt with the cost and the salt in head.
func stretch(passphrase, head []byte) (key [keySize]byte, err error) {
	if fips140.Enforced() {
		return key, fmt.Errorf("%w: passphrases need scrypt", ErrFIPS)
	}
	out, err := scrypt.Key(passphrase, head[2:], 1<<head[1], 8, 1, keySize)
	if err != nil {
		panic("encrypt: scrypt: " + err.Error()) // the parameters are in bounds
	}
	defer clear(out)
	return [keySize]byte(out), nil
}

func identityAAD(stanzaType string) []byte {
	return []byte("modelsec/v1/identity\x00" + stanzaType)
}

func encodeKeyFile(label, stanzaType string, data []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: label, Headers: map[string]string{"Type": stanzaType}, Bytes: data}))
}

// decodeKeyFile accepts one encoding only: what encodeKeyFile writes, with any
// line ends and white space around it. encoding/pem by itself skips garbage,
// merges repeated headers and finds a second key behind the first.
func decodeKeyFile(label, s string) (stanzaType string, data []byte, err error) {
	if len(s) > maxKeyFile {
		return "", nil, fmt.Errorf("encrypt: key file of %d bytes, at most %d are allowed", len(s), maxKeyFile)
	}
	s = strings.TrimSpace(strings.ReplaceAll(s, "\r\n", "\n"))
	block, _ := pem.Decode([]byte(s))
	if block == nil {
		return "", nil, fmt.Errorf("encrypt: not a key file")
	}
	stanzaType = block.Headers["Type"]
	if block.Type != label {
		clear(block.Bytes)
		return "", nil, fmt.Errorf("encrypt: key file is a %.40q, not a %s", block.Type, label)
	}
	if strings.TrimSpace(encodeKeyFile(label, stanzaType, block.Bytes)) != s {
		clear(block.Bytes)
		return "", nil, fmt.Errorf("encrypt: key file is not one %s with the one header Type", label)
	}
	return stanzaType, block.Bytes, nil
}
