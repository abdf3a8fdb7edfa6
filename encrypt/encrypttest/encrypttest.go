// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package encrypttest checks that a Recipient and an Identity keep the contract
// of package encrypt. Every implementation, here and elsewhere, calls [Run]. One
// that calls a service, a device or a program hands over a [Service] too, with
// which the suite brings the other side into every state that it can be in.
package encrypttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
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

// testAbilities is K14: an identity that calls out says so, and names its key
// id, so that a flood of entries does not become a flood of requests.
func testAbilities(t *testing.T, p Pair) {
	for who, id := range map[string]encrypt.Identity{"identity": p.Identity, "stranger": p.Stranger} {
		if encrypt.CallsOut(id) == p.Local {
			t.Errorf("the %s says CallsOut %v, the pair says Local %v", who, encrypt.CallsOut(id), p.Local)
		}
		if _, ok := id.(encrypt.Keyed); !ok && !p.Local {
			t.Errorf("the %s is not Keyed", who)
		}
	}
	if _, ok := p.Recipient.(encrypt.Keyed); !ok && !p.Local {
		t.Error("the recipient is not Keyed")
	}
}

func testRoundTrip(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	if err := unwrap(t, p.Identity, s, b); err != nil {
		t.Fatalf("unwrap: %v", err)
	}
	b.NotAfter = time.Time{}
	payload := make([]byte, 128)
	rand.Read(payload)
	s, err := p.Recipient.Wrap(t.Context(), bytes.Clone(payload), b)
	if err != nil {
		t.Fatalf("wrap without expiry: %v", err)
	}
	s.Scope = encrypt.ScopeArtifact
	got, err := p.Identity.Unwrap(t.Context(), s, b.For(s))
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("unwrapped %d other bytes (error %v)", len(got), err)
	}
}

func testStanza(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	g := &encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest, Recipients: []encrypt.Stanza{s}}
	doc, err := g.Encode()
	if err != nil {
		t.Fatalf("encode: %v", err)
	}
	back, err := encrypt.ParseGrant(doc)
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	if err := unwrap(t, p.Identity, back.Recipients[0], b); err != nil {
		t.Errorf("unwrap what went through a grant document: %v", err)
	}
	for who, v := range map[string]any{"recipient": p.Recipient, "identity": p.Identity} {
		if k, ok := v.(encrypt.Keyed); ok && k.KeyID(b) != s.KeyID {
			t.Errorf("the %s says key id %s, the stanza %s", who, k.KeyID(b), s.KeyID)
		}
	}
	other, b2 := wrap(t, p)
	if other.KeyID == s.KeyID && b2.ArtifactID != b.ArtifactID {
		t.Error("two artifacts show the same key id: readers of a registry could list customers (FORMAT.md §8.3)")
	}
}

func testBinding(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	for name, change := range map[string]func(*encrypt.Binding, *encrypt.Stanza){
		"artifact":   func(b *encrypt.Binding, s *encrypt.Stanza) { b.ArtifactID[0] ^= 1 },
		"commitment": func(b *encrypt.Binding, s *encrypt.Stanza) { b.Commitment[31] ^= 1 },
		"manifest":   func(b *encrypt.Binding, s *encrypt.Stanza) { b.Manifest = digest.FromString("another") },
		"expiry":     func(b *encrypt.Binding, s *encrypt.Stanza) { s.NotAfter = s.NotAfter.Add(time.Second) },
		"no expiry":  func(b *encrypt.Binding, s *encrypt.Stanza) { s.NotAfter = time.Time{} },
	} {
		b, s := b, s
		change(&b, &s)
		// The thief gives the stanza the key id that it would have there.
		if k, ok := p.Recipient.(encrypt.Keyed); ok {
			s.KeyID = k.KeyID(b)
		}
		if err := unwrap(t, p.Identity, s, b); !errors.Is(err, encrypt.ErrNoKey) {
			t.Errorf("another %s: error %v, want ErrNoKey", name, err)
		}
		if out, err := p.Identity.Unwrap(t.Context(), s, b.For(s)); p.Binds && (err == nil || errors.Is(err, encrypt.ErrNotMine)) {
			t.Errorf("another %s: the mechanism returned %d bytes, error %v", name, len(out), err)
		}
	}
}

func testStranger(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	if err := unwrap(t, p.Stranger, s, b); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("error %v, want ErrNoKey", err)
	}
	if k, ok := p.Stranger.(encrypt.Keyed); ok {
		s.KeyID = k.KeyID(b)
		if out, err := p.Stranger.Unwrap(t.Context(), s, b.For(s)); err == nil || errors.Is(err, encrypt.ErrNotMine) {
			t.Errorf("relabelled for the stranger: %d bytes, error %v", len(out), err)
		}
	}
}

func testTampered(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	for _, at := range []int{0, len(s.Body) / 2, len(s.Body) - 1} {
		bad := s
		bad.Body = bytes.Clone(s.Body)
		bad.Body[at] ^= 1
		err := unwrap(t, p.Identity, bad, b)
		if !errors.Is(err, encrypt.ErrNoKey) {
			t.Errorf("byte %d of %d flipped: error %v, want ErrNoKey", at, len(s.Body), err)
		}
		// A stanza that anybody may have written must not speak for the key.
		for _, final := range []error{encrypt.ErrDenied, encrypt.ErrDisabled, encrypt.ErrThrottled, encrypt.ErrUnavailable} {
			if errors.Is(err, final) {
				t.Errorf("byte %d of %d flipped: error %v is %v", at, len(s.Body), err, final)
			}
		}
	}
	for _, body := range [][]byte{s.Body[:len(s.Body)-1], append(bytes.Clone(s.Body), 0), {0}, make([]byte, 8<<10)} {
		bad := s
		bad.Body = body
		if err := unwrap(t, p.Identity, bad, b); !errors.Is(err, encrypt.ErrNoKey) {
			t.Errorf("body of %d bytes for %d: error %v, want ErrNoKey", len(body), len(s.Body), err)
		}
	}
}

func testForeign(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	before := p.Requests()
	for name, change := range map[string]func(*encrypt.Stanza){
		"type":        func(s *encrypt.Stanza) { s.Type += "-x" },
		"type prefix": func(s *encrypt.Stanza) { s.Type = s.Type[:len(s.Type)-1] },
		"type case":   func(s *encrypt.Stanza) { s.Type = strings.ToUpper(s.Type) },
		"key id":      func(s *encrypt.Stanza) { s.KeyID = strings.Repeat("0", 32) },
		"key id case": func(s *encrypt.Stanza) { s.KeyID = "F" + s.KeyID[1:] },
		"no key id":   func(s *encrypt.Stanza) { s.KeyID = "" },
	} {
		foreign := s
		change(&foreign)
		if out, err := p.Identity.Unwrap(t.Context(), foreign, b.For(foreign)); !errors.Is(err, encrypt.ErrNotMine) || out != nil {
			t.Errorf("another %s: %d bytes, error %v, want ErrNotMine", name, len(out), err)
		}
	}
	if after := p.Requests(); after != before {
		t.Errorf("%d requests for stanzas of others", after-before)
	}
}

func testBorrowed(t *testing.T, p Pair) {
	_, b := NewBinding(t)
	payload := make([]byte, 128)
	rand.Read(payload)
	want := bytes.Clone(payload)
	s, err := p.Recipient.Wrap(t.Context(), payload, b)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	if !bytes.Equal(payload, want) {
		t.Error("Wrap modified the key")
	}
	clear(payload) // as WrapKey does
	s.Scope, s.NotAfter = encrypt.ScopeArtifact, b.NotAfter
	body := bytes.Clone(s.Body)
	got, err := p.Identity.Unwrap(t.Context(), s, b.For(s))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("unwrapped %d other bytes (error %v)", len(got), err)
	}
	if !bytes.Equal(s.Body, body) {
		t.Error("Unwrap modified the stanza")
	}
	clear(got) // as UnwrapKey does
	if again, err := p.Identity.Unwrap(t.Context(), s, b.For(s)); err != nil || !bytes.Equal(again, want) {
		t.Errorf("a second Unwrap returned %d other bytes (error %v): the first result was retained", len(again), err)
	}
}

func testConcurrent(t *testing.T, p Pair) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			key := encrypt.NewKey()
			defer key.Close()
			b := encrypt.Binding{Manifest: digest.FromString(rand.Text())}
			rand.Read(b.ArtifactID[:])
			b.Commitment = key.Commitment(b.ArtifactID)
			stanzas, err := encrypt.WrapKey(t.Context(), key, b, p.Recipient)
			if err != nil {
				t.Errorf("wrap: %v", err)
				return
			}
			got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, Now, p.Stranger, p.Identity)
			if err != nil {
				t.Errorf("unwrap: %v", err)
				return
			}
			got.Close()
		})
	}
	wg.Wait()
}

func testCancelled(t *testing.T, p Pair) {
	s, b := wrap(t, p)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := p.Requests()
	if _, err := p.Recipient.Wrap(ctx, make([]byte, 128), b); !errors.Is(err, context.Canceled) {
		t.Errorf("wrap: error %v, want context.Canceled", err)
	}
	if _, err := p.Identity.Unwrap(ctx, s, b.For(s)); !errors.Is(err, context.Canceled) {
		t.Errorf("unwrap: error %v, want context.Canceled", err)
	}
	if after := p.Requests(); after != before {
		t.Errorf("%d requests after cancellation", after-before)
	}
}
