// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"

	"github.com/modelsec/modelsec-go/encrypt"
)

// keys are files with the keys of one run.
type keys struct {
	signer, trust         string // who signs releases
	recipient, identity   string // who opens encrypted ones
	jwePublic, jwePrivate string // the same for ocicrypt
}

func writeKeys(dir string) (keys, error) {
	k := keys{
		signer: filepath.Join(dir, "signer.pem"), trust: filepath.Join(dir, "trust.pem"),
		recipient: filepath.Join(dir, "recipient.pem"), identity: filepath.Join(dir, "identity.pem"),
		jwePublic: filepath.Join(dir, "jwe-public.pem"), jwePrivate: filepath.Join(dir, "jwe-private.pem"),
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return k, err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return k, err
	}
	jwe, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return k, err
	}
	identity, err := encrypt.GenerateIdentity(encrypt.DefaultType)
	if err != nil {
		return k, err
	}
	for _, f := range []struct {
		private, public string
		key             any
		publicKey       any
	}{
		{k.signer, k.trust, signer, signer.Public()},
		{k.jwePrivate, k.jwePublic, jwe, jwe.Public()},
	} {
		private, err := x509.MarshalPKCS8PrivateKey(f.key)
		if err != nil {
			return k, err
		}
		public, err := x509.MarshalPKIXPublicKey(f.publicKey)
		if err != nil {
			return k, err
		}
		if err := writePEM(f.private, "PRIVATE KEY", private); err != nil {
			return k, err
		}
		if err := writePEM(f.public, "PUBLIC KEY", public); err != nil {
			return k, err
		}
	}
	if err := os.WriteFile(k.recipient, []byte(identity.Recipient().PEM()), 0o600); err != nil {
		return k, err
	}
	return k, os.WriteFile(k.identity, []byte(identity.PEM()), 0o600)
}

func writePEM(name, kind string, der []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
