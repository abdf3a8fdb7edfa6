// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

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
