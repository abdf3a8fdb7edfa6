// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
)

const keygenLong = `keygen writes two key pairs:

  signing.key   signs what you publish            keep it secret
  signing.pub   what others give to --key         publish it
  identity.key  opens models encrypted for you    keep it secret
  identity.pub  what others give to --recipient   publish it

The signing pair is ECDSA P-256 as PKCS #8 and SubjectPublicKeyInfo PEM, which
openssl and cosign read. The identity pair is ML-KEM-768 with X25519. Nothing is
overwritten.`

// keygenResult is the JSON form of what keygen wrote.
type keygenResult struct {
	SigningKey string `json:"signingKey"`
	SigningPub string `json:"signingPub"`
	KeyID      string `json:"signingKeyId"`
	Identity   string `json:"identity"`
	Recipient  string `json:"recipient"`
}

func (t *tool) keygenCommand() *cobra.Command {
	var dir, passphraseFile string
	c := &cobra.Command{
		Use:   "keygen [--out DIR]",
		Short: "Make a signing key pair and an identity",
		Long:  keygenLong,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return t.keygen(dir, passphraseFile)
		},
	}
	c.Flags().StringVar(&dir, "out", ".", "`directory` to write to; made if absent")
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "protect identity.key by the passphrase in this `file`")
	return c
}

// keyFile is a file to write.
type keyFile struct {
	path string
	text []byte
	perm fs.FileMode
}

func (t *tool) keygen(dir, passphraseFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	keyID, err := provenance.KeyID(key.Public())
	if err != nil {
		return err
	}
	id, err := encrypt.GenerateIdentity(encrypt.DefaultType)
	if err != nil {
		return err
	}
	secret := id.PEM()
	if passphraseFile != "" {
		passphrase, err := readPassphrase(passphraseFile)
		if err != nil {
			return err
		}
		if secret, err = encrypt.EncryptIdentity(id, passphrase); err != nil {
			return usage(err)
		}
	}
	out := keygenResult{
		SigningKey: filepath.Join(dir, "signing.key"), SigningPub: filepath.Join(dir, "signing.pub"), KeyID: keyID,
		Identity: filepath.Join(dir, "identity.key"), Recipient: filepath.Join(dir, "identity.pub"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err = writeNew([]keyFile{
		{out.SigningKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600},
		{out.SigningPub, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644},
		{out.Identity, []byte(secret), 0o600},
		{out.Recipient, []byte(id.Recipient().PEM()), 0o644},
	})
	if err != nil {
		return err
	}
	return t.result(out, func(w io.Writer) {
		for _, path := range []string{out.SigningKey, out.SigningPub, out.Identity, out.Recipient} {
			fmt.Fprintln(w, path)
		}
	})
}

// writeNew writes all of the files or none, and never over one that is there.
func writeNew(files []keyFile) error {
	var written []string
	for _, f := range files {
		err := writeOne(f)
		if err == nil {
			written = append(written, f.path)
			continue
		}
		for _, path := range written {
			err = errors.Join(err, os.Remove(path))
		}
		if errors.Is(err, fs.ErrExist) {
			return &failure{err: fmt.Errorf("%s is there already, and keys are not overwritten", f.path), status: statusFailed, hint: "--out DIR writes to another directory"}
		}
		return err
	}
	return nil
}

func writeOne(f keyFile) error {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, f.perm)
	if err != nil {
		return err
	}
	_, err = file.Write(f.text)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		err = errors.Join(err, os.Remove(f.path))
	}
	return err
}
