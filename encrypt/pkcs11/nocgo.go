// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package pkcs11

import (
	"context"
	"crypto"
	"errors"
	"io"

	"github.com/modelsec/modelsec-go/encrypt"
)

// ErrNoCgo says that this program was built without cgo, and so cannot load the
// library of a token.
var ErrNoCgo = errors.New("pkcs11: this program was built without cgo (CGO_ENABLED=0)")

// A Key cannot be made without cgo.
type Key struct{ config Config }

// New returns [ErrNoCgo], or what is wrong with c.
func New(c Config) (*Key, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return nil, ErrNoCgo
}

// Wrap returns [ErrNoCgo].
func (k *Key) Wrap(context.Context, []byte, encrypt.Binding) (encrypt.Stanza, error) {
	return encrypt.Stanza{}, ErrNoCgo
}

// Unwrap returns [ErrNoCgo].
func (k *Key) Unwrap(context.Context, encrypt.Stanza, encrypt.Binding) ([]byte, error) {
	return nil, ErrNoCgo
}

// Close does nothing.
func (k *Key) Close() error { return nil }

// A Signer cannot be made without cgo.
type Signer struct{ config Config }

// NewSigner returns [ErrNoCgo], or what is wrong with c.
func NewSigner(_ context.Context, c Config) (*Signer, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return nil, ErrNoCgo
}

// Public returns nil.
func (s *Signer) Public() crypto.PublicKey { return nil }

// Sign returns [ErrNoCgo].
func (s *Signer) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, ErrNoCgo }

// SignContext returns [ErrNoCgo].
func (s *Signer) SignContext(context.Context, io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, ErrNoCgo
}

// Close does nothing.
func (s *Signer) Close() error { return nil }
