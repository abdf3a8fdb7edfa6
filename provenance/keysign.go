// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	_ "crypto/sha256" // linked for crypto.Hash
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"
)

// KeySigner returns a Signer that signs with one key: ECDSA P-256, P-384, P-521
// (the hash follows the curve) or Ed25519. The key may live elsewhere, since only
// crypto.Signer is asked of it.
func KeySigner(key crypto.Signer) (Signer, error) {
	if key == nil {
		return nil, errors.New("no key to sign with")
	}
	hint, err := keyHint(key.Public())
	if err != nil {
		return nil, err
	}
	return &keySigner{key: key, hint: hint}, nil
}

// ContextSigner is a crypto.Signer whose key lives elsewhere, so that signing may
// take a while. KeySigner and sigstore.NewSigner sign with the context of the call.
type ContextSigner interface {
	crypto.Signer
	// SignContext is Sign, and ends with ctx.
	SignContext(ctx context.Context, rand io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error)
}

type keySigner struct {
	key  crypto.Signer
	hint string
}

func (s *keySigner) Sign(ctx context.Context, payloadType string, payload []byte) (*Bundle, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if payloadType == "" || len(payload) == 0 {
		return nil, errors.New("nothing to sign: want a payload and its type")
	}
	if len(payload) > maxStatement {
		return nil, fmt.Errorf("payload of %d bytes, limit %d", len(payload), maxStatement)
	}
	pub := s.key.Public()
	sch, err := schemeOf(pub)
	if err != nil {
		return nil, err
	}
	message := PAE(payloadType, payload)
	var signature []byte
	if c, ok := s.key.(ContextSigner); ok {
		signature, err = c.SignContext(ctx, rand.Reader, sch.input(message), sch.hash)
	} else {
		signature, err = s.key.Sign(rand.Reader, sch.input(message), sch.hash)
	}
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	// A device that signs in another form, or a computation that went wrong, must
	// not be found out by the readers.
	if !verifySignature(pub, message, signature) {
		return nil, fmt.Errorf("sign: the key returned a signature that does not verify under its public key %T", pub)
	}
	return keyBundle(Envelope{PayloadType: payloadType, Payload: payload, Signature: signature}, s.hint)
}

// KeyVerifier returns a Verifier that holds a bundle proven when one of the keys
// signed it. What the bundle says about its key only decides which is tried
// first. A key of an unsupported kind, or no key at all, makes Verify fail.
func KeyVerifier(pubs ...crypto.PublicKey) Verifier {
	v := &keyVerifier{}
	for _, pub := range pubs {
		text, err := keyPEM(pub)
		if err != nil {
			v.defect = err
			break
		}
		hint, err := keyHint(pub)
		if err != nil {
			v.defect = err
			break
		}
		v.keys = append(v.keys, knownKey{pub: pub, pem: text, hint: hint})
	}
	if len(pubs) == 0 {
		v.defect = errors.New("no keys to verify with")
	}
	return v
}

type knownKey struct {
	pub       crypto.PublicKey
	pem, hint string
}

type keyVerifier struct {
	keys   []knownKey
	defect error
}

func (v *keyVerifier) Verify(ctx context.Context, b *Bundle) (*Verified, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if v.defect != nil {
		return nil, v.defect
	}
	if b == nil {
		return nil, formatError("no bundle")
	}
	e := b.envelope
	if e.PayloadType != PayloadType {
		return nil, formatError("payload type %q, want %q", clip(e.PayloadType), PayloadType)
	}
	key, ok := v.find(PAE(e.PayloadType, e.Payload), e.Signature, b.material.KeyHint)
	if !ok {
		return nil, fmt.Errorf("%w: signed by none of the %d keys", ErrSignature, len(v.keys))
	}
	// Only now is the payload worth parsing.
	s, subjects, err := DecodeStatement(e.Payload, nil)
	if err != nil {
		return nil, err
	}
	return &Verified{Signer: Principal{Key: key.pem}, Statement: s, Subjects: subjects}, nil
}

// find tries the hinted keys, then the others.
func (v *keyVerifier) find(message, signature []byte, hint string) (knownKey, bool) {
	for _, hinted := range []bool{true, false} {
		for _, k := range v.keys {
			if (k.hint == hint) == hinted && verifySignature(k.pub, message, signature) {
				return k, true
			}
		}
	}
	return knownKey{}, false
}

func verifySignature(pub crypto.PublicKey, message, signature []byte) bool {
	sch, err := schemeOf(pub)
	if err != nil {
		return false
	}
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, sch.input(message), signature)
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	}
	return false
}

// input is what the key is given to sign.
func (s scheme) input(message []byte) []byte {
	if s.hash == 0 {
		return message
	}
	h := s.hash.New()
	h.Write(message)
	return h.Sum(nil)
}
