// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// party is somebody with keys: to sign and to open.
type party struct {
	key      crypto.Signer
	signer   provenance.Signer
	identity *encrypt.HPKEIdentity
}

func newParty(t testing.TB) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &party{key: key}
	if p.signer, err = provenance.KeySigner(key); err != nil {
		t.Fatal(err)
	}
	if p.identity, err = encrypt.GenerateIdentity(""); err != nil {
		t.Fatal(err)
	}
	return p
}

// signWithEd25519 gives p a key that verifies faster, for long loops.
func (p *party) signWithEd25519(t testing.TB) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.key = key
	if p.signer, err = provenance.KeySigner(key); err != nil {
		t.Fatal(err)
	}
}

func (p *party) policy() provenance.Policy { return provenance.RequireKey(p.key.Public()) }

func (p *party) recipients() []encrypt.Recipient { return []encrypt.Recipient{p.identity.Recipient()} }

func (p *party) principal(t testing.TB) provenance.Principal {
	t.Helper()
	rule, err := p.policy().Rule(repository)
	if err != nil {
		t.Fatal(err)
	}
	return rule.Require[0].Signers[0]
}

// client returns a client of p over the registry given.
func (p *party) client(r registry.Opener) *modelsec.Client {
	return &modelsec.Client{Registry: r, Identities: []encrypt.Identity{p.identity}}
}

// profiles are the options by which a push makes the two profiles.
func (p *party) profiles() map[string]func() *modelsec.PushOptions {
	return map[string]func() *modelsec.PushOptions{
		"plain":     func() *modelsec.PushOptions { return p.options(nil) },
		"encrypted": func() *modelsec.PushOptions { return p.options(p.recipients()) },
	}
}

func (p *party) options(to []encrypt.Recipient) *modelsec.PushOptions {
	o := &modelsec.PushOptions{Signer: p.signer, Recipients: to}
	modelsec.SetSegmentSize(o, segment)
	return o
}

// service is an identity that calls out, as key services do, and counts.
type service struct {
	encrypt.Identity
	calls atomic.Int64
}

func (s *service) CallsOut() bool { return true }

func (s *service) Unwrap(ctx context.Context, st encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	s.calls.Add(1)
	return s.Identity.Unwrap(ctx, st, b)
}
