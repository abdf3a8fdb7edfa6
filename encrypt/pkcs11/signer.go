// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"math/big"
	"sync"

	"github.com/miekg/pkcs11"
)

// A Signer is a private key in a token. It implements crypto.Signer and
// provenance.ContextSigner, is safe for concurrent use, and formats as its name. It
// must be closed, so that the library is let go of.
type Signer struct {
	config Config
	pool   *pool
	module *module
	public crypto.PublicKey
	closed sync.Once
}

// NewSigner returns the key that c describes, and asks the token for the public
// key beside it.
func NewSigner(ctx context.Context, c Config) (*Signer, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	m, err := load(c.Module)
	if err != nil {
		return nil, err
	}
	s := &Signer{config: c, pool: newPool(c, m.ctx, pkcs11.CKO_PRIVATE_KEY), module: m}
	point, err := s.pool.do(ctx, nil, func(x session, _ []byte) ([]byte, error) {
		return s.read(x, pkcs11.CKA_EC_POINT)
	})
	var params []byte
	if err == nil {
		params, err = s.pool.do(ctx, nil, func(x session, _ []byte) ([]byte, error) {
			return s.read(x, pkcs11.CKA_EC_PARAMS)
		})
	}
	if err == nil {
		s.public, err = publicKey(params, point)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: public key: %w", c.name(), err), s.Close())
	}
	return s, nil
}

// read returns an attribute of the public key.
func (s *Signer) read(x session, attribute uint) ([]byte, error) {
	object, err := s.pool.object(x.handle, pkcs11.CKO_PUBLIC_KEY)
	if err != nil {
		return nil, err
	}
	got, err := x.lib.GetAttributeValue(x.handle, object, []*pkcs11.Attribute{pkcs11.NewAttribute(attribute, nil)})
	if err != nil {
		return nil, err
	}
	if len(got) != 1 || len(got[0].Value) == 0 || len(got[0].Value) > maxAttribute {
		return nil, errors.New("the token describes it in no way that can be read")
	}
	return got[0].Value, nil
}

// What the bindings do not have of PKCS#11 3.0.
const (
	ckkEdwards = 0x40
	ckmEdDSA   = 0x1057
)

// curves by the DER of their names, as CKA_EC_PARAMS has them.
var curves = []struct {
	params []byte
	curve  elliptic.Curve // nil: Ed25519
}{
	{[]byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"), elliptic.P256()},
	{[]byte("\x06\x05\x2b\x81\x04\x00\x22"), elliptic.P384()},
	{[]byte("\x06\x05\x2b\x81\x04\x00\x23"), elliptic.P521()},
	{[]byte("\x06\x03\x2b\x65\x70"), nil},
	{[]byte("\x13\x0cedwards25519"), nil}, // of PKCS#11 3.0 before its errata, and SoftHSM
}

func publicKey(params, point []byte) (crypto.PublicKey, error) {
	// The point is inside an OCTET STRING; some tokens leave that away.
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 {
		point = inner
	}
	for _, c := range curves {
		switch {
		case !bytes.Equal(c.params, params):
		case c.curve != nil:
			return ecdsa.ParseUncompressedPublicKey(c.curve, point)
		case len(point) != ed25519.PublicKeySize:
			return nil, fmt.Errorf("Ed25519 key of %d bytes", len(point))
		default:
			return ed25519.PublicKey(bytes.Clone(point)), nil
		}
	}
	return nil, errors.New("not on P-256, P-384, P-521 or edwards25519")
}

// Public returns the public key that the token had.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign is SignContext without a context.
func (s *Signer) Sign(rand io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return s.SignContext(context.Background(), rand, digest, o)
}

// SignContext has the token sign a digest, or with an Ed25519 key, for which the
// hash of o is zero, a message. The randomness is the token's own. An ECDSA
// signature is ASN.1. What the token returns is not verified.
func (s *Signer) SignContext(ctx context.Context, _ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	key, isECDSA := s.public.(*ecdsa.PublicKey)
	hash := o.HashFunc()
	if isECDSA != (hash != 0) || isECDSA && len(digest) != hash.Size() {
		return nil, fmt.Errorf("%s: sign: want a digest for ECDSA and a message for Ed25519, got %d bytes of hash %d", s.config.name(), len(digest), hash)
	}
	mechanism := pkcs11.NewMechanism(ckmEdDSA, nil)
	if isECDSA {
		mechanism = pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)
		// As FIPS 186-5 §6.4 has it. Some tokens do not.
		digest = digest[:min(len(digest), (key.Curve.Params().BitSize+7)/8)]
	}
	out, err := s.pool.do(ctx, digest, func(x session, in []byte) ([]byte, error) {
		if err := x.lib.SignInit(x.handle, []*pkcs11.Mechanism{mechanism}, x.key); err != nil {
			return nil, err
		}
		return x.lib.Sign(x.handle, in)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: sign: %w", s.config.name(), err)
	}
	if !isECDSA {
		return out, nil
	}
	half := len(out) / 2
	if half == 0 || len(out)%2 != 0 || half > maxAttribute {
		return nil, fmt.Errorf("%s: sign: the token returned %d bytes", s.config.name(), len(out))
	}
	return asn1.Marshal(struct{ R, S *big.Int }{new(big.Int).SetBytes(out[:half]), new(big.Int).SetBytes(out[half:])})
}

// Close closes the sessions and lets go of the library, as Key.Close does.
func (s *Signer) Close() (err error) {
	s.closed.Do(func() {
		s.pool.close()
		err = s.module.release()
	})
	return err
}
