// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// copyEntries attaches documents with every entry that is listed, its wrapped
// key as it was and its expiry another: anybody who can write can do that.
func copyEntries(t *testing.T, s shelf, d ocispec.Descriptor, notAfter ...time.Time) {
	t.Helper()
	for _, r := range s.referrers(d, grantType) {
		for _, at := range notAfter {
			copied := must(encrypt.ParseGrant(s.read(s.manifest(r).Layers[0])))
			for i := range copied.Recipients {
				copied.Recipients[i].NotAfter = at
			}
			s.attach(d, grantType, s.blob(grantType, must(copied.Encode())))
		}
	}
}

// TestCopiedEntryGivesARotationNoMoreTime: the entry that opened the artifact
// proves what it says, and a copy of it that says something else does not.
func TestCopiedEntryGivesARotationNoMoreTime(t *testing.T) {
	p, fresh := newParty(t), newParty(t)
	memory, d := granted(t, p, false)
	until := now.Add(time.Hour)
	c := p.client(memory)
	c.Now = func() time.Time { return now }
	if _, err := c.Grant(t.Context(), pinned(d), p.policy(), p.recipients(), &modelsec.GrantOptions{NotAfter: until}); err != nil {
		t.Fatal(err)
	}
	copyEntries(t, openShelf(t, memory, repository), d, time.Time{}, until.Add(1000*time.Hour))
	o := rotation(p, fresh)
	o.Signer = nil
	if _, err := c.Rotate(t.Context(), repository, p.policy(), o); err != nil {
		t.Fatal(err)
	}
	got := entries(t, p, memory, d)
	if len(got) != 1 || got[0].KeyID != keyID(t, fresh, memory, d) || !got[0].NotAfter.Equal(until) {
		t.Errorf("the new key has %+v, the old one had until %v", got, until)
	}
}

// TestCopiedEntryDoesNotReplaceItsOriginal: what is merged are whole entries.
// One with the wrapped key of another and an expiry of its own opens nothing.
func TestCopiedEntryDoesNotReplaceItsOriginal(t *testing.T) {
	p, victim, friend := newParty(t), newParty(t), newParty(t)
	for range 8 { // the order of the listing is that of digests
		memory, d := granted(t, p, false)
		c := p.client(memory)
		if _, err := c.Grant(t.Context(), pinned(d), p.policy(), victim.recipients(), nil); err != nil {
			t.Fatal(err)
		}
		copyEntries(t, openShelf(t, memory, repository), d, now.Add(1000*time.Hour))
		if _, err := c.Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), nil); err != nil {
			t.Fatal(err)
		}
		for _, who := range []*party{p, victim, friend} {
			if !opens(t, who, p, memory, d) {
				t.Fatal("a recipient lost access")
			}
		}
	}
}

// TestGrantThatCannotBeReadForNowIsNotTakenForNone: a registry that fails for
// one document must not let a key pass for replaced, or revoked, that it lists.
func TestGrantThatCannotBeReadForNowIsNotTakenForNone(t *testing.T) {
	p, old, fresh := newParty(t), newParty(t), newParty(t)
	memory, d := granted(t, p, false)
	var hidden []ocispec.Descriptor
	if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), old.recipients(), &modelsec.GrantOptions{Signer: p.signer}); err != nil {
		t.Fatal(err)
	}
	s := openShelf(t, memory, repository)
	for _, r := range s.referrers(d, grantType) {
		if m := s.manifest(r); len(m.Layers) == 2 {
			hidden = append(m.Layers, r)
		}
	}
	for i, part := range hidden {
		busy := &evil{Opener: memory, before: func(_ context.Context, op, on string) error {
			if op == "fetch" && on == string(part.Digest) {
				return &registry.Error{Op: "fetch", Status: 503, Err: errors.New("down")}
			}
			return nil
		}}
		c := p.client(busy)
		got, err := c.Rotate(t.Context(), repository, p.policy(), rotation(old, fresh))
		refused(t, err, modelsec.ErrNotRotated)
		if got[0].Outcome != modelsec.OutcomeFailed {
			t.Errorf("part %d: the rotation says %q", i, got[0].Outcome)
		}
		reviewed, err := c.Review(t.Context(), repository, nil)
		if err != nil || reviewed[0].Err == nil {
			t.Errorf("part %d: the review says %+v, %v", i, reviewed, err)
		}
		if err := c.Revoke(t.Context(), pinned(d), nil, keyID(t, p, memory, d)); err == nil {
			t.Errorf("part %d: revoked without having read all", i)
		}
		// Whoever opens it needs no more than a grant that opens it.
		if part.Digest != hidden[len(hidden)-1].Digest && !opens(t, p, p, busy, d) {
			t.Errorf("part %d: the key is in another document", i)
		}
	}
}
