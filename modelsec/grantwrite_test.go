// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"slices"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
)

// TestSignatureOfAStrangerReplacesNoGrant: entries that the policy vouches for
// keep their signature when somebody else signs a grant beside them, and cannot
// be dropped by him.
func TestSignatureOfAStrangerReplacesNoGrant(t *testing.T) {
	p, stranger, friend, other := newParty(t), newParty(t), newParty(t), newParty(t)
	memory, d := granted(t, p, true)
	c := p.client(memory)
	if _, err := c.Grant(t.Context(), pinned(d), p.policy(), other.recipients(), &modelsec.GrantOptions{Signer: p.signer}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), &modelsec.GrantOptions{Signer: stranger.signer}); err != nil {
		t.Fatal(err)
	}
	remote := p.client(memory)
	remote.Identities = []encrypt.Identity{&service{Identity: p.identity}}
	m, err := remote.Open(t.Context(), pinned(d), p.policy())
	if err != nil {
		t.Fatalf("the key service lost access: %v", err)
	}
	m.Close()
	if !opens(t, friend, p, memory, d) {
		t.Error("the friend has no access")
	}
	policy := p.policy()
	err = c.Revoke(t.Context(), pinned(d), &modelsec.RevokeOptions{Signer: stranger.signer, Policy: &policy}, keyID(t, other, memory, d))
	refused(t, err, modelsec.ErrGrantSigned)
}

// TestFloodDoesNotKeepAKeyFromBeingRevoked: documents that together hold more
// entries than one may are rewritten as several.
func TestFloodDoesNotKeepAKeyFromBeingRevoked(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory, d := granted(t, p, false)
	c := p.client(memory)
	if _, err := c.Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), nil); err != nil {
		t.Fatal(err)
	}
	s := openShelf(t, memory, repository)
	good := must(encrypt.ParseGrant(s.read(s.manifest(s.referrers(d, grantType)[0]).Layers[0])))
	victim, gone := keyID(t, p, memory, d), keyID(t, friend, memory, d)
	for i := range 3 {
		junk := *good
		junk.Recipients = nil
		for j := range 500 {
			id := []string{gone, victim}[j%2]
			junk.Recipients = append(junk.Recipients, encrypt.Stanza{Type: "x", KeyID: id, Scope: encrypt.ScopeArtifact, Body: []byte{byte(i), byte(j), byte(j >> 8)}})
		}
		s.attach(d, grantType, s.blob(grantType, must(junk.Encode())))
	}
	if err := c.Revoke(t.Context(), pinned(d), nil, gone); err != nil {
		t.Fatal(err)
	}
	if opens(t, friend, p, memory, d) || !opens(t, p, p, memory, d) {
		t.Error("the wrong recipient lost access")
	}
	if slices.ContainsFunc(entries(t, p, memory, d), func(e modelsec.GrantEntry) bool { return e.KeyID == gone }) {
		t.Error("the key id is still listed")
	}
}
