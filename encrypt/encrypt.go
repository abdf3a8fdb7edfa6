// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package encrypt seals model weights and hands their key to recipients.
//
// A [Key] encrypts one version of one artifact. Every layer is a FLOE message
// under a key derived from it; a [PartSealer] and a [PartOpener] work on its
// segments, in any order and in parallel. [WrapKey] wraps the Key for a set of
// recipients, [UnwrapKey] recovers it with the identities of a reader. Both
// sides are one-method interfaces, [Recipient] and [Identity]: HPKE key pairs
// are here, key services are packages of their own.
//
// What is wrapped is never the bare key. The wrapped bytes name the artifact,
// its manifest, scope and expiry, and are compared after unwrapping, so that a
// grant cannot be carried to another artifact whatever the recipient binds by
// itself. The key must then match the commitment in the signed index.
//
// The package promises that keys stay out of errors, logs and formatted output,
// and that a Key lives in one wiped page which is locked and kept out of core
// dumps where the system allows. It does not promise that no key material is
// elsewhere in memory: the AES round keys and FLOE message keys that Go's
// standard library and this package work with are ordinary memory.
//
// The formats are those of docs/FORMAT.md, which sections here refer to.
package encrypt

import (
	"context"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNotMine is what an [Identity] returns for a stanza that is not for
	// it. It asks for the next stanza and never reaches the caller by itself.
	ErrNotMine = errors.New("encrypt: not wrapped for this identity")
	// ErrDecrypt says that something did not authenticate: a header, a segment,
	// a sealed section, a wrapped key, a key file. It never says why.
	ErrDecrypt = errors.New("encrypt: decryption failed")
	// ErrKeyMismatch says that a wrapped key was meant for another artifact,
	// scope or expiry, or is not the key that the artifact commits to.
	ErrKeyMismatch = errors.New("encrypt: key does not belong to this artifact")
	// ErrExpired says that a grant was intact and its notAfter has passed.
	ErrExpired = errors.New("encrypt: grant has expired")
	// ErrNoKey says that no identity opened any grant; see [NoKeyError].
	ErrNoKey = errors.New("encrypt: no key")
	// ErrFIPS says that an operation needs an algorithm that is not approved
	// (scrypt) while crypto/fips140 is enforced.
	ErrFIPS = errors.New("encrypt: not available while FIPS 140-3 is enforced")
)

// A Recipient wraps keys for somebody. Implementations must be safe for
// concurrent use, must honour ctx where they do I/O, must not retain or modify
// key, and must not put any of it into an error. What a key service answers is
// told by [ErrDenied], [ErrDisabled], [ErrThrottled] and [ErrUnavailable].
type Recipient interface {
	// Wrap encrypts key, 128 bytes which already name everything in b. Where
	// the mechanism takes associated data, that is b.Context(). The Stanza has
	// Type, KeyID, Body and optionally Params; the rest is set by [WrapKey].
	Wrap(ctx context.Context, key []byte, b Binding) (Stanza, error)
}

// An Identity unwraps what a [Recipient] wrapped. Implementations must be safe
// for concurrent use, must honour ctx where they do I/O, and must not put
// plaintext into an error. What a key service answers is told as by a
// [Recipient]. The bytes it returns are wiped by the caller.
type Identity interface {
	// Unwrap decrypts s, which b describes: b.Context() is the associated data
	// that Wrap had. It returns [ErrNotMine], without any I/O, unless Type and
	// KeyID of s are exactly its own; endpoints, regions and costs come from
	// the Identity's configuration and never from s. [UnwrapKey] checks the
	// bytes returned, so Unwrap need not know their meaning.
	Unwrap(ctx context.Context, s Stanza, b Binding) ([]byte, error)
}

// Keyed is an optional ability of an [Identity] and a [Recipient]: to name the
// key id that its stanzas bear in the artifact of b. [UnwrapKey] offers a Keyed
// identity only the stanzas with that id, which keeps a grant with a thousand
// recipients cheap.
type Keyed interface {
	KeyID(b Binding) string
}

// Caller is an optional ability of an [Identity] that does I/O to unwrap: key
// services, hardware, brokers. [UnwrapKey] bounds how often it is called, and
// the caller of UnwrapKey must offer it signed grants only (FORMAT.md §8.5).
type Caller interface {
	CallsOut() bool
}

// CallsOut reports whether id is a [Caller] that says so.
func CallsOut(id Identity) bool {
	c, ok := id.(Caller)
	return ok && c.CallsOut()
}

// WrapClass says which adversary a wrapping withstands (FORMAT.md §8.4).
// Greater is stronger.
type WrapClass int

const (
	// Classical wrapping falls to a quantum computer, also in retrospect.
	Classical WrapClass = iota
	// PostQuantum wrapping is not known to.
	PostQuantum
)

// String returns the class as the index header spells it.
func (c WrapClass) String() string {
	if c == PostQuantum {
		return "post-quantum"
	}
	return "classical"
}

// ParseWrapClass is the inverse of String.
func ParseWrapClass(s string) (WrapClass, error) {
	switch s {
	case "post-quantum":
		return PostQuantum, nil
	case "classical":
		return Classical, nil
	}
	return Classical, fmt.Errorf("encrypt: wrap class %q; known are post-quantum and classical", s)
}

// Classed is an optional ability of a [Recipient]: to say that it is better
// than [Classical].
type Classed interface {
	Class() WrapClass
}

// ClassOf returns the class of r, [Classical] where it does not say.
func ClassOf(r Recipient) WrapClass {
	if c, ok := r.(Classed); ok {
		return c.Class()
	}
	return Classical
}

// Scope says what a stanza gives access to (FORMAT.md §8.1).
type Scope string

const (
	// ScopeArtifact grants the data key, and so the whole artifact.
	ScopeArtifact Scope = "artifact"
	// ScopeFiles grants the keys of some layers (FORMAT.md §8.6).
	ScopeFiles Scope = "files"
)

// A Stanza is one entry of a grant: a key wrapped for one recipient. All of it
// is public and, unless the grant is signed, anybody's word.
type Stanza struct {
	// Type names the mechanism; FORMAT.md §8.4 has those of this package.
	Type string
	// KeyID is what [Binding.KeyID] returns for the recipient.
	KeyID string
	// Scope is what the wrapped key opens.
	Scope Scope
	// NotAfter is when honest readers stop, in whole seconds. Zero: never.
	NotAfter time.Time
	// Params are for the mechanism: at most 16, at most 1 KiB each.
	Params map[string]string
	// Body is the wrapped key, at most 8 KiB.
	Body []byte
	// Sealed is the file list of [ScopeFiles]; identities ignore it.
	Sealed []byte
}
