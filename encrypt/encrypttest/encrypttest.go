// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package encrypttest checks that a Recipient and an Identity keep the contract
// of package encrypt. Every implementation, here and elsewhere, calls [Run]. One
// that calls a service, a device or a program hands over a [Service] too, with
// which the suite brings the other side into every state that it can be in.
package encrypttest

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/opencontainers/go-digest"
)

// A Pair is what one test works on.
type Pair struct {
	// Recipient wraps for Identity.
	Recipient encrypt.Recipient
	Identity  encrypt.Identity
	// Stranger is of the same type and cannot open what Recipient wraps.
	Stranger encrypt.Identity
	// Secrets are byte strings that must not appear however Identity and
	// Recipient are formatted, nor in errors and logs: private keys, tokens.
	Secrets [][]byte
	// Binds says that the mechanism authenticates the binding by itself, so that
	// Unwrap fails under another one before anybody compares the bytes in it.
	Binds bool
	// Local says that none of the three does I/O. For all others Requests and
	// Service are compulsory.
	Local bool
	// Requests returns how many requests Recipient, Identity and Stranger have
	// made so far.
	Requests func() int
	// Service is what they call.
	Service Service
	// Logged returns what they have written to a log of their own so far. What
	// goes to the default logger is seen anyway. Nil: they write none.
	Logged func() string
}

// Run runs the suite. open is called by every test and may share nothing or
// everything between calls; it registers its own cleanup. Tests run one after
// the other and replace the default logger while they do.
func Run(t *testing.T, open func(t *testing.T) Pair) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Pair)
	}{
		{"Abilities", testAbilities},
		{"RoundTrip", testRoundTrip},
		{"StanzaFitsTheFormat", testStanza},
		{"AnotherBindingFails", testBinding},
		{"AnotherKeyFails", testStranger},
		{"TamperedBodyFails", testTampered},
		{"ForeignStanzaIsNotMine", testForeign},
		{"KeysStayUntouched", testBorrowed},
		{"Concurrent", testConcurrent},
		{"Cancelled", testCancelled},
		{"Redacted", testRedacted},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := open(t)
			p.check(t)
			test.run(t, p)
		})
	}
	t.Run("Service", func(t *testing.T) {
		if open(t).Local {
			return
		}
		for _, s := range states {
			t.Run(s.name, func(t *testing.T) {
				p := open(t)
				p.check(t)
				testState(t, p, s)
			})
		}
	})
}

// check fails the test where the pair is not described in full.
func (p *Pair) check(t *testing.T) {
	t.Helper()
	if p.Logged == nil {
		p.Logged = func() string { return "" }
	}
	if p.Local {
		if p.Requests != nil {
			t.Fatal("a local pair makes no requests: Requests must be nil")
		}
		p.Requests = func() int { return 0 }
	} else if p.Requests == nil {
		t.Fatal("a pair that is not Local counts its Requests")
	}
	p.Service.check(t, p.Local)
}

// Now is the clock of the suite; bindings expire an hour later.
var Now = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

// NewBinding returns a fresh key and a binding for it.
func NewBinding(t testing.TB) (*encrypt.Key, encrypt.Binding) {
	key := encrypt.NewKey()
	t.Cleanup(func() { key.Close() })
	b := encrypt.Binding{Manifest: digest.FromString(rand.Text()), NotAfter: Now.Add(time.Hour)}
	rand.Read(b.ArtifactID[:])
	b.Commitment = key.Commitment(b.ArtifactID)
	return key, b
}

func wrap(t *testing.T, p Pair) (encrypt.Stanza, encrypt.Binding) {
	t.Helper()
	key, b := NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, p.Recipient)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	return stanzas[0], b
}

// unwrap opens s by way of UnwrapKey, which is how readers meet an Identity.
func unwrap(t *testing.T, id encrypt.Identity, s encrypt.Stanza, b encrypt.Binding) error {
	t.Helper()
	key, err := encrypt.UnwrapKey(t.Context(), []encrypt.Stanza{s}, b, Now, id)
	if err == nil {
		key.Close()
	}
	return err
}
