// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/modelsec/modelsec-go/encrypt"
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

// loadRecipients reads the public keys of those who shall open the model.
func loadRecipients(paths []string) ([]encrypt.Recipient, error) {
	var out []encrypt.Recipient
	for _, path := range paths {
		text, err := readKeyFile(path)
		if err != nil {
			return nil, err
		}
		r, err := encrypt.ParseRecipient(string(text))
		if err != nil {
			f := usagef("%s: %w", path, err)
			if bytes.Contains(text, []byte("IDENTITY")) {
				f.hinted("--recipient takes the public key, identity.pub")
			}
			return nil, f
		}
		out = append(out, r)
	}
	return out, nil
}

// identityFlags are the flags by which a verb opens a model.
type identityFlags struct {
	files          []string
	passphraseFile string
}

func (i *identityFlags) define(c *cobra.Command) {
	c.Flags().StringArrayVar(&i.files, "identity", nil, "private key `file` that opens the model, as keygen writes it (may be repeated)")
	c.Flags().StringVar(&i.passphraseFile, "passphrase-file", "", "`file` with the passphrase of the identities (default: asked for on a terminal)")
}

// load reads the identities and asks for passphrases where they need one.
func (i *identityFlags) load(ctx context.Context, t *tool) ([]encrypt.Identity, error) {
	var out []encrypt.Identity
	for _, path := range i.files {
		id, err := i.loadOne(ctx, t, path)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

func (i *identityFlags) loadOne(ctx context.Context, t *tool, path string) (encrypt.Identity, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if !protected(text) {
		id, err := encrypt.ParseIdentity(string(text))
		if err != nil {
			f := usagef("%s: %w", path, err)
			if bytes.Contains(text, []byte("RECIPIENT")) {
				f.hinted("--identity takes the private key, identity.key")
			}
			return nil, f
		}
		return id, nil
	}
	passphrase, err := i.passphrase(ctx, t, path)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	id, err := encrypt.ParseEncryptedIdentity(string(text), passphrase)
	// scrypt takes a block as large as all that the rest of a pull needs, and
	// without this the process would hold both at once.
	debug.FreeOSMemory()
	if errors.Is(err, encrypt.ErrDecrypt) {
		return nil, (&failure{err: fmt.Errorf("%s: wrong passphrase", path), status: statusNoKey})
	}
	if err != nil {
		return nil, usagef("%s: %w", path, err)
	}
	return id, nil
}

func protected(text []byte) bool {
	return strings.HasPrefix(strings.TrimSpace(string(text)), "-----BEGIN MODELSEC ENCRYPTED IDENTITY-----")
}

func (i *identityFlags) passphrase(ctx context.Context, t *tool, path string) ([]byte, error) {
	if i.passphraseFile != "" {
		return readPassphrase(i.passphraseFile)
	}
	fd := int(t.stdin.Fd())
	if !term.IsTerminal(fd) {
		return nil, usagef("%s is under a passphrase, and there is no terminal to ask on", path).hinted("--passphrase-file F")
	}
	// A read from a terminal cannot be cancelled, and an interrupted one would
	// leave the echo off.
	state, err := term.GetState(fd)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(t.stderr, "Passphrase of %s: ", visible(path))
	defer fmt.Fprintln(t.stderr)
	type answer struct {
		passphrase []byte
		err        error
	}
	typed := make(chan answer, 1)
	go func() {
		b, err := term.ReadPassword(fd)
		typed <- answer{b, err}
	}()
	select {
	case a := <-typed:
		return a.passphrase, a.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(fd, state))
	}
}

// readPassphrase leaves out the line end that editors add.
func readPassphrase(path string) ([]byte, error) {
	b, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}
	if b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r")); len(b) == 0 {
		return nil, usagef("%s: empty passphrase", path)
	}
	return b, nil
}
