// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyuri"
)

// recipientFlags are the flags that say who shall open a model.
type recipientFlags struct {
	keys           []string
	allowClassical string
}

func (r *recipientFlags) define(c *cobra.Command, purpose string) {
	c.Flags().StringArrayVar(&r.keys, "recipient", nil, purpose+": a public `key` file, or a URI as in awskms:///arn:… (may be\nrepeated)")
	c.Flags().StringVar(&r.allowClassical, "allow-classical", "", "the `reason` for recipients whose wrapping a quantum computer opens, also in retrospect")
}

// load reads public keys and asks helpers about those elsewhere.
func (r *recipientFlags) load(ctx context.Context) ([]encrypt.Recipient, error) {
	var out []encrypt.Recipient
	for _, name := range r.keys {
		one, err := loadRecipient(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func loadRecipient(ctx context.Context, name string) (encrypt.Recipient, error) {
	if keyuri.Is(name) {
		return openKey(ctx, name)
	}
	text, err := readKeyFile(name)
	if err != nil {
		return nil, err
	}
	one, err := encrypt.ParseRecipient(string(text))
	if err != nil {
		f := usagef("%s: %w", name, err)
		if bytes.Contains(text, []byte("IDENTITY")) {
			f.hinted("--recipient takes the public key, identity.pub")
		}
		return nil, f
	}
	return one, nil
}

// openKey opens a key that is elsewhere. What a key service answers keeps its
// own status; all else is a URI that cannot be used.
func openKey(ctx context.Context, uri string) (keyuri.Key, error) {
	k, err := keyuri.Open(ctx, uri)
	if missing, ok := errors.AsType[*keyuri.MissingHelperError](err); ok {
		f := usagef("%s: no program %s in PATH", keyName(uri), missing.Program)
		if missing.Install != "" {
			f.hinted("in a clone of modelsec-go: %s", missing.Install)
		}
		return nil, f
	}
	if err != nil && !isAny(err, encrypt.ErrDenied, encrypt.ErrDisabled, encrypt.ErrThrottled, encrypt.ErrUnavailable) && ctx.Err() == nil {
		return nil, usagef("%s: %w", keyName(uri), err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", keyName(uri), err)
	}
	return k, nil
}

// keyName is a URI without its parameters, one of which may be a PIN.
func keyName(uri string) string {
	name, _, _ := strings.Cut(uri, "?")
	return name
}

// identityFlags are the flags by which a verb opens a model.
type identityFlags struct {
	keys           []string
	passphraseFile string
}

func (i *identityFlags) define(c *cobra.Command) {
	c.Flags().StringArrayVar(&i.keys, "identity", nil, "what opens the model: a private `key` file, as keygen writes it, or a URI as in awskms:///arn:…\n(may be repeated)")
	c.Flags().StringVar(&i.passphraseFile, "passphrase-file", "", "`file` with the passphrase of the identities (default: asked for on a terminal)")
}

// load reads the identities and asks for passphrases where they need one.
func (i *identityFlags) load(ctx context.Context, t *tool) ([]encrypt.Identity, error) {
	var out []encrypt.Identity
	for _, path := range i.keys {
		id, err := i.loadOne(ctx, t, path)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

func (i *identityFlags) loadOne(ctx context.Context, t *tool, path string) (encrypt.Identity, error) {
	if keyuri.Is(path) {
		return openKey(ctx, path)
	}
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
