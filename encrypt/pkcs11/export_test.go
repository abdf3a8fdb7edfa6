// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import "github.com/miekg/pkcs11"

// Library is what tests put between a Key and the library of a token, for the
// faults that a token does not show on demand.
type Library = library

// NewWith is New with a library of the caller's.
func NewWith(c Config, lib Library) (*Key, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return &Key{config: c, pool: newPool(c, lib, pkcs11.CKO_SECRET_KEY)}, nil
}

// Load returns the library of New, which stays loaded until release.
func Load(path string) (ctx *pkcs11.Ctx, release func() error, err error) {
	m, err := load(path)
	if err != nil {
		return nil, nil, err
	}
	return m.ctx, m.release, nil
}
