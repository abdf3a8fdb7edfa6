// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"os"

	"github.com/modelsec/modelsec-go/provenance"
)

// maxKeyFile is far above any key file. What is named by mistake may be a
// model.
const maxKeyFile = 64 << 10

func readKeyFile(path string) ([]byte, error) {
	return readFile(path, maxKeyFile)
}

// readFile reads a file that the user named and that must be small.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, usage(err)
	}
	if info.Size() > limit {
		return nil, usagef("%s has %d bytes, limit %d: is it the right file?", path, info.Size(), limit)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usage(err)
	}
	return b, nil
}

// loadSigner reads a private signing key. An empty path is no signer.
func loadSigner(path string) (provenance.Signer, crypto.PublicKey, error) {
	if path == "" {
		return nil, nil, nil
	}
	key, err := loadPrivateKey(path)
	if err != nil {
		return nil, nil, err
	}
	signer, err := provenance.KeySigner(key)
	if err != nil {
		return nil, nil, usagef("%s: %w", path, err)
	}
	return signer, key.Public(), nil
}

func loadPrivateKey(path string) (crypto.Signer, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := provenance.ParsePrivateKey(text)
	if err != nil {
		f := usagef("%s: %w", path, err)
		if bytes.Contains(text, []byte("PUBLIC KEY")) {
			f.hinted("--sign-key takes the private key, signing.key")
		}
		return nil, f
	}
	return key, nil
}

// loadPublicKey reads a public signing key.
func loadPublicKey(path string) (text []byte, pub crypto.PublicKey, err error) {
	if text, err = readKeyFile(path); err != nil {
		return nil, nil, err
	}
	if pub, err = provenance.ParsePublicKey(text); err != nil {
		f := usagef("%s: %w", path, err)
		if bytes.Contains(text, []byte("PRIVATE KEY")) {
			f.hinted("--key takes the public key, signing.pub")
		}
		return nil, nil, f
	}
	return text, pub, nil
}
