// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package pkcs11 uses keys that never leave a hardware security module, by way of
// its PKCS#11 library: a [Key] wraps the keys of models, a [Signer] signs what is
// said about them.
//
// A [Key] is a secret key of 256 bits in a token that is sensitive and not
// extractable; others are refused. It wraps and unwraps with CKM_AES_GCM: the 128
// bytes of a grant (FORMAT.md §8.2) with their context as associated data, under a
// random nonce, of which 2^32 are enough for as many grants.
//
// A Signer is a private key for ECDSA (P-256, P-384, P-521) or Ed25519, sensitive
// and not extractable as well, whose public key is an object of the same name in
// the token. It is a crypto.Signer, as provenance.KeySigner takes.
//
// The library is native code in this process and is trusted like it. It is
// loaded once for each path, on first use; sessions are kept, at most
// Config.Sessions for a Key or Signer, and one of them logs in for all. When the token was
// away, or somebody logged out, it starts over once within the call. A PIN
// that the token refused is not tried again: tokens lock after a few.
//
// PKCS#11 cannot be interrupted. A call whose context ends returns, and what it
// asked of the library goes on; its session counts as taken until then.
//
// The return codes of a failed decryption differ from one token to the next, and
// SoftHSM says CKR_GENERAL_ERROR: all are encrypt.ErrDecrypt, except those that
// are about the session, the login or the device.
//
// The package needs cgo. Without it [New] is an error and everything else works.
// It does not promise that the data key stays inside the token: it goes in to be
// wrapped and comes out unwrapped.
package pkcs11

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/modelsec/modelsec-go/encrypt"
)

// Type is the type of the stanzas of this package (FORMAT.md §8.4).
const Type = "pkcs11-aes-gcm"

// Config says which key of which token is meant, and how to log in.
type Config struct {
	// Module is the absolute path of the PKCS#11 library.
	Module string
	// Token is the label of the token, and compulsory. Serial, Manufacturer and
	// Model narrow the search down where they are set.
	Token                       string
	Serial, Manufacturer, Model string
	// Object is the label of the key and ID its CKA_ID. At least one is set, and
	// exactly one key must match. Token, Object and ID are what the key id is
	// made from (FORMAT.md §8.3), so whoever wraps and whoever unwraps must name
	// the same.
	Object string
	ID     []byte
	// PIN returns the PIN of the user. It is called for each login. Nil: there is
	// no login, for tokens that have another way to authenticate.
	PIN func() (string, error)
	// Sessions is how many calls run at a time. If less than or equal to 0, a
	// default (currently 8) is used.
	Sessions int
}

const defaultSessions = 8

func (c Config) check() error {
	switch {
	case !filepath.IsAbs(c.Module):
		return fmt.Errorf("pkcs11: library %q; want an absolute path", c.Module)
	case c.Token == "":
		return errors.New("pkcs11: no token is named")
	case c.Object == "" && len(c.ID) == 0:
		return errors.New("pkcs11: no key is named; want its label (object) or its id")
	}
	for _, s := range []string{c.Token, c.Serial, c.Manufacturer, c.Model, c.Object} {
		if len(s) > maxAttribute || strings.ContainsRune(s, 0) {
			return errors.New("pkcs11: a label is too long or has a zero byte")
		}
	}
	if len(c.ID) > maxAttribute {
		return errors.New("pkcs11: the id of the key is too long")
	}
	return nil
}

// maxAttribute is far above the 32 bytes that labels of tokens have, and what
// objects bear in practice.
const maxAttribute = 512

// resource is what the key id is made from.
func (c Config) resource() []byte {
	return []byte(c.Token + "\x00" + c.Object + "\x00" + string(c.ID))
}

// name is how errors call the key.
func (c Config) name() string {
	return fmt.Sprintf("pkcs11 key %q of token %q", c.Object+hexID(c.ID), c.Token)
}

func hexID(id []byte) string {
	if len(id) == 0 {
		return ""
	}
	return fmt.Sprintf("#%x", id)
}

// What does not need the library of a token is the same with and without cgo.

// Resource is what the key id is made from.
func (k *Key) Resource() []byte { return k.config.resource() }

// KeyID returns the id of the key in the artifact of b.
func (k *Key) KeyID(b encrypt.Binding) string { return b.KeyID(Type, k.config.resource()) }

// CallsOut returns true.
func (k *Key) CallsOut() bool { return true }

// Class returns encrypt.PostQuantum: AES-256-GCM does not fall to a quantum
// computer.
func (k *Key) Class() encrypt.WrapClass { return encrypt.PostQuantum }

// String returns the name of the key and its token.
func (k *Key) String() string { return k.config.name() }

// Format writes the name for every verb, and so never a PIN.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.config.name()) }

// MarshalText returns the name.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.config.name()), nil }

// String returns the name of the key and its token.
func (s *Signer) String() string { return s.config.name() }

// Format writes the name for every verb, and so never a PIN.
func (s *Signer) Format(f fmt.State, _ rune) { io.WriteString(f, s.config.name()) }

// MarshalText returns the name.
func (s *Signer) MarshalText() ([]byte, error) { return []byte(s.config.name()), nil }
