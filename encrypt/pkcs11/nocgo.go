// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package pkcs11

import (
	"context"
	"errors"

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
