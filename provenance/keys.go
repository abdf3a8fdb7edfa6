// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const supportedKeys = "ECDSA P-256, P-384, P-521 or Ed25519"

// ParsePublicKey reads one public key as PEM (PUBLIC KEY): ECDSA P-256, P-384,
// P-521 or Ed25519.
func ParsePublicKey(text []byte) (crypto.PublicKey, error) {
	block, err := onePEM(text)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("public key: PEM type %q, want PUBLIC KEY", clip(block.Type))
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if _, err := schemeOf(pub); err != nil {
		return nil, err
	}
	return pub, nil
}

// ParsePrivateKey reads one private key as PEM: PKCS #8 (PRIVATE KEY) or SEC 1
// (EC PRIVATE KEY), of the algorithms of ParsePublicKey. Keys under a passphrase
// are refused.
func ParsePrivateKey(text []byte) (crypto.Signer, error) {
	block, err := onePEM(text)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	var key any
	switch {
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case strings.Contains(block.Type, "ENCRYPTED"):
		return nil, fmt.Errorf("private key: %s is under a passphrase: decrypt it first", clip(block.Type))
	default:
		return nil, fmt.Errorf("private key: PEM type %q, want PRIVATE KEY or EC PRIVATE KEY", clip(block.Type))
	}
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("private key: %T cannot sign: want %s", key, supportedKeys)
	}
	if _, err := schemeOf(signer.Public()); err != nil {
		return nil, err
	}
	return signer, nil
}

// KeyID returns the identity of a public key: the SHA-256 of its DER
// SubjectPublicKeyInfo, in hexadecimal. Two spellings of one key have one id.
func KeyID(pub crypto.PublicKey) (string, error) {
	sum, err := keySum(pub)
	return hex.EncodeToString(sum[:]), err
}

// keyHint is the id as cosign writes it into bundles.
func keyHint(pub crypto.PublicKey) (string, error) {
	sum, err := keySum(pub)
	return base64.StdEncoding.EncodeToString(sum[:]), err
}

func keySum(pub crypto.PublicKey) ([sha256.Size]byte, error) {
	der, err := keyDER(pub)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	return sha256.Sum256(der), nil
}

func keyDER(pub crypto.PublicKey) ([]byte, error) {
	if _, err := schemeOf(pub); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return der, nil
}

// keyPEM is the one spelling of a public key that this package writes.
func keyPEM(pub crypto.PublicKey) (string, error) {
	der, err := keyDER(pub)
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// onePEM wants exactly one block and nothing around it: with two, which key was
// meant would depend on the reader.
func onePEM(text []byte) (*pem.Block, error) {
	if len(text) > maxPEM {
		return nil, fmt.Errorf("%d bytes, limit %d", len(text), maxPEM)
	}
	trimmed := strings.TrimSpace(string(text))
	if !strings.HasPrefix(trimmed, "-----BEGIN ") {
		return nil, errors.New("not PEM: want one block and nothing before it")
	}
	block, rest := pem.Decode([]byte(trimmed))
	if block == nil {
		return nil, errors.New("not PEM")
	}
	if len(rest) > 0 {
		return nil, errors.New("data after the PEM block: want exactly one block")
	}
	if len(block.Headers) > 0 {
		return nil, errors.New("PEM block has headers, which keys have no use for")
	}
	return block, nil
}

// scheme says how a key signs. The key alone decides it.
type scheme struct {
	hash crypto.Hash // zero: the message itself is signed
}

// schemeOf lets the hash follow the curve, as Sigstore does.
func schemeOf(pub crypto.PublicKey) (scheme, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k == nil {
			break
		}
		switch k.Curve {
		case elliptic.P256():
			return scheme{crypto.SHA256}, nil
		case elliptic.P384():
			return scheme{crypto.SHA384}, nil
		case elliptic.P521():
			return scheme{crypto.SHA512}, nil
		}
		return scheme{}, fmt.Errorf("public key: unsupported ECDSA curve, want %s", supportedKeys)
	case ed25519.PublicKey:
		if len(k) != ed25519.PublicKeySize {
			return scheme{}, fmt.Errorf("public key: Ed25519 key of %d bytes, want %d", len(k), ed25519.PublicKeySize)
		}
		return scheme{}, nil
	}
	return scheme{}, fmt.Errorf("public key: %T is unsupported, want %s", pub, supportedKeys)
}
