// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	key "github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

// The names of curves, as tokens have them.
const (
	p256Params    = "\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"
	p384Params    = "\x06\x05\x2b\x81\x04\x00\x22"
	p521Params    = "\x06\x05\x2b\x81\x04\x00\x23"
	koblitzParams = "\x06\x05\x2b\x81\x04\x00\x0a"
	ed25519Params = "\x13\x0cedwards25519"

	edwardsPairs = 0x1055 // CKM_EC_EDWARDS_KEY_PAIR_GEN
)

// generatePair makes a key pair in the token. more replaces attributes of the
// private key.
func (tok *token) generatePair(t *testing.T, label, params string, more ...*pkcs11.Attribute) (public, private pkcs11.ObjectHandle) {
	t.Helper()
	mechanism := uint(pkcs11.CKM_EC_KEY_PAIR_GEN)
	if params == ed25519Params {
		mechanism = edwardsPairs
	}
	common := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{1})}
	public, private, err := admin.GenerateKeyPair(tok.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(mechanism, nil)},
		append(common[:3:3], pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, []byte(params))),
		append(append(common[:3:3], pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true)), more...))
	check(t, err)
	return public, private
}

func (tok *token) signer(t *testing.T, label string) (*key.Signer, error) {
	t.Helper()
	c, err := key.ParseSignerURI(fmt.Sprintf("pkcs11:token=%s;object=%s;type=private?module-path=%s&pin-value=%s",
		strings.ReplaceAll(tok.label, " ", "%20"), strings.ReplaceAll(label, " ", "%20"), softHSM, tok.pin))
	check(t, err)
	s, err := key.NewSigner(t.Context(), c)
	if err == nil {
		t.Cleanup(func() { check(t, s.Close()) })
	}
	return s, err
}

// TestSignerSigns with each algorithm what the standard library verifies, by
// several at a time.
func TestSignerSigns(t *testing.T) {
	tok := newToken(t)
	for label, x := range map[string]struct {
		params string
		hash   crypto.Hash
	}{
		"p256": {p256Params, crypto.SHA256}, "p384": {p384Params, crypto.SHA384}, "p521": {p521Params, crypto.SHA512}, "ed25519": {ed25519Params, 0},
	} {
		t.Run(label, func(t *testing.T) {
			tok.generatePair(t, label, x.params, secret...)
			s, err := tok.signer(t, label)
			check(t, err)
			var calls sync.WaitGroup
			for i := range 16 {
				calls.Go(func() {
					message := fmt.Appendf(nil, "message %d", i)
					digest := message
					if x.hash != 0 {
						h := x.hash.New()
						h.Write(message)
						digest = h.Sum(nil)
					}
					sig, err := s.Sign(rand.Reader, digest, x.hash)
					ok := false
					switch pub := s.Public().(type) {
					case *ecdsa.PublicKey:
						ok = ecdsa.VerifyASN1(pub, digest, sig)
					case ed25519.PublicKey:
						ok = ed25519.Verify(pub, message, sig)
					}
					if err != nil || !ok {
						t.Errorf("signature %x does not verify under %T, error %v", sig, s.Public(), err)
					}
				})
			}
			calls.Wait()
			other := crypto.SHA256 // which Ed25519 does not sign
			if x.hash != 0 {
				other = 0
			}
			if sig, err := s.Sign(rand.Reader, make([]byte, sha256.Size), other); err == nil {
				t.Errorf("with hash %d: signed %x", other, sig)
			}
			if sig, err := s.Sign(rand.Reader, make([]byte, 20), crypto.SHA256); err == nil {
				t.Errorf("a digest of another length: signed %x", sig)
			}
			size := 1
			if x.hash != 0 {
				size = x.hash.Size()
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if _, err := s.SignContext(ctx, rand.Reader, make([]byte, size), x.hash); !errors.Is(err, context.Canceled) {
				t.Errorf("in a context that has ended: %v", err)
			}
			if text := fmt.Sprintf("%+v %s", s, s); strings.Contains(text, tok.pin) || !strings.Contains(text, label) {
				t.Errorf("formats as %s", text)
			}
		})
	}
}

// TestSigningKeysThatDoNotSuit: one that could leave the token is no better than
// a file.
func TestSigningKeysThatDoNotSuit(t *testing.T) {
	tok := newToken(t)
	tok.generatePair(t, "extractable", p256Params, pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
	tok.generatePair(t, "readable", p256Params, pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
	tok.generatePair(t, "koblitz", koblitzParams, secret...)
	tok.generatePair(t, "twice", p256Params, secret...)
	tok.generatePair(t, "twice", p256Params, secret...)
	public, _ := tok.generatePair(t, "alone", p256Params, secret...)
	check(t, admin.DestroyObject(tok.session, public))
	tok.generate(t, "aes", 1, 32, secret...)
	for label, want := range map[string]string{
		"extractable": "could be read out", "readable": "could be read out", "koblitz": "not on P-256", "twice": "several keys match", "alone": "public key: ", "aes": "no such key", "absent": "no such key",
	} {
		s, err := tok.signer(t, label)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), tok.pin) {
			t.Errorf("%s: got %v, %v, want %q", label, s, err, want)
		}
	}
	tok.generatePair(t, "good", p256Params, secret...)
	tok.pin += "x"
	if s, err := tok.signer(t, "absent"); err == nil {
		t.Errorf("a wrong PIN: got %v", s)
	}
	if _, err := key.ParseSignerURI("pkcs11:token=t;object=o;type=secret-key?module-path=/x.so"); err == nil {
		t.Error("a key that wraps was taken for one that signs")
	}
	if _, err := key.ParseURI("pkcs11:token=t;object=o;type=private?module-path=/x.so"); err == nil {
		t.Error("a key that signs was taken for one that wraps")
	}
}

// TestSignerStartsOver when somebody logged out, and says so when it is closed.
func TestSignerStartsOver(t *testing.T) {
	tok := newToken(t)
	tok.generatePair(t, "k", p256Params, secret...)
	s, err := tok.signer(t, "k")
	check(t, err)
	digest := sha256.Sum256(nil)
	check(t, admin.Logout(tok.session))
	sig, err := s.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(s.Public().(*ecdsa.PublicKey), digest[:], sig) {
		t.Errorf("after a logout: %v", err)
	}
	check(t, s.Close())
	if _, err := s.Sign(rand.Reader, digest[:], crypto.SHA256); err == nil {
		t.Error("a closed key signs")
	}
}
