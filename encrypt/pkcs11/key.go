// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/modelsec/modelsec-go/encrypt"
)

// A Key is a key in a token. It implements encrypt.Recipient, Identity, Keyed,
// Caller and Classed, is safe for concurrent use, and formats as its name. It
// must be closed, so that the library is let go of.
type Key struct {
	config Config
	pool   *pool
	module *module // nil in tests that bring a library
	closed sync.Once
}

// New returns the key that c describes. It loads the library and asks the token
// nothing.
func New(c Config) (*Key, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m, err := load(c.Module)
	if err != nil {
		return nil, err
	}
	return &Key{config: c, pool: newPool(c, m.ctx, pkcs11.CKO_SECRET_KEY), module: m}, nil
}

// Close closes the sessions and lets go of the library; the last Key of a library
// unloads it. Calls that are under way make Close wait. A second Close does
// nothing.
func (k *Key) Close() (err error) {
	k.closed.Do(func() {
		k.pool.close()
		if k.module != nil {
			err = k.module.release()
		}
	})
	return err
}

const (
	nonceSize = 12
	tagSize   = 16
	bodySize  = nonceSize + 128 + tagSize
)

// Wrap implements encrypt.Recipient. The body of the stanza is nonce (12),
// ciphertext and tag (16).
func (k *Key) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	body, err := k.pool.do(ctx, key, func(s session, key []byte) ([]byte, error) {
		nonce := make([]byte, nonceSize)
		rand.Read(nonce)
		params := pkcs11.NewGCMParams(nonce, b.Context(), tagSize*8)
		defer params.Free()
		if err := s.lib.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, s.key); err != nil {
			return nil, err
		}
		sealed, err := s.lib.Encrypt(s.handle, key)
		if err != nil {
			return nil, err
		}
		// Tokens in FIPS mode write a nonce of their own in place of ours.
		if used := params.IV(); len(used) == nonceSize {
			nonce = used
		}
		return append(nonce, sealed...), nil
	})
	if err != nil {
		return encrypt.Stanza{}, fmt.Errorf("%s: wrap: %w", k.config.name(), err)
	}
	if len(body) != nonceSize+len(key)+tagSize {
		return encrypt.Stanza{}, fmt.Errorf("%s: wrap: the token returned %d bytes for %d", k.config.name(), len(body)-nonceSize, len(key))
	}
	return encrypt.Stanza{Type: Type, KeyID: k.KeyID(b), Body: body}, nil
}

// Unwrap implements encrypt.Identity.
func (k *Key) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != Type || s.KeyID != k.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	if len(s.Params) != 0 || len(s.Body) != bodySize {
		return nil, fmt.Errorf("%s stanza: %w", Type, encrypt.ErrDecrypt)
	}
	out, err := k.pool.do(ctx, s.Body, func(s session, body []byte) ([]byte, error) {
		params := pkcs11.NewGCMParams(bytes.Clone(body[:nonceSize]), b.Context(), tagSize*8)
		defer params.Free()
		if err := s.lib.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, s.key); err != nil {
			return nil, err
		}
		out, err := s.lib.Decrypt(s.handle, body[nonceSize:])
		if err != nil && !lost(err) {
			return nil, encrypt.ErrDecrypt
		}
		return out, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: unwrap: %w", k.config.name(), err)
	}
	return out, nil
}
