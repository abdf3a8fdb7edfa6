// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// granted is an artifact for p, in a repository of its own.
func granted(t *testing.T, p *party, signed bool) (*registry.Memory, ocispec.Descriptor) {
	t.Helper()
	memory := registry.NewMemory()
	o := p.options(p.recipients())
	d := push(t, p.client(memory), tagged, small(), o)
	if signed {
		return memory, d
	}
	s := openShelf(t, memory, repository)
	for _, r := range s.referrers(d, grantType) {
		doc := s.manifest(r).Layers[0]
		if err := s.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		s.attach(d, grantType, doc)
	}
	return memory, d
}

// opens reports whether somebody's key opens the artifact.
func opens(t *testing.T, who, signer *party, o registry.Opener, d ocispec.Descriptor) bool {
	t.Helper()
	m, err := who.client(o).Open(t.Context(), pinned(d), signer.policy())
	if err != nil {
		refused(t, err, modelsec.ErrNoKey)
		return false
	}
	m.Close()
	return true
}

// keyID is how an artifact names somebody.
func keyID(t *testing.T, who *party, o registry.Opener, d ocispec.Descriptor) string {
	t.Helper()
	s := openShelf(t, o, repository)
	for _, r := range s.referrers(d, grantType) {
		g := must(encrypt.ParseGrant(s.read(s.manifest(r).Layers[0])))
		return who.identity.KeyID(encrypt.Binding{ArtifactID: g.ArtifactID, Commitment: g.Commitment, Manifest: g.Manifest})
	}
	t.Fatal("no grant")
	return ""
}

func entries(t *testing.T, p *party, o registry.Opener, d ocispec.Descriptor) []modelsec.GrantEntry {
	t.Helper()
	got, err := p.client(o).Grants(t.Context(), pinned(d))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestGrantChangesNothingThatIsSigned: no layer is read or written, the manifest
// stays, and the new recipient pulls.
func TestGrantChangesNothingThatIsSigned(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	for _, signed := range []bool{true, false} {
		memory, d := granted(t, p, signed)
		s := openShelf(t, memory, repository)
		before := s.everything(d)
		o := &modelsec.GrantOptions{}
		if signed {
			o.Signer = p.signer
		}
		watched := &evil{Opener: memory}
		if opens(t, friend, p, memory, d) {
			t.Fatal("the friend needs no grant")
		}
		if _, err := p.client(watched).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{friend.identity.Recipient()}, o); err != nil {
			t.Fatal(err)
		}
		if watched.fetched.Load() != 0 {
			t.Error("a grant read content")
		}
		after := s.everything(d)
		for digest, piece := range before {
			if _, ok := after[digest]; !ok && piece.what != "grant" && piece.what != "grant manifest" && piece.what != "grant signature" {
				t.Errorf("the %s changed", piece.what)
			}
		}
		if s.resolve("v3").Digest != d.Digest {
			t.Error("the tag was moved")
		}
		dest := filepath.Join(t.TempDir(), "model")
		if _, err := friend.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
			t.Error(err)
		}
		sameFiles(t, dest, small())
		if !opens(t, p, p, memory, d) {
			t.Error("the first recipient lost access")
		}
		if got := entries(t, p, memory, d); len(got) != 2 || got[0].Signed != signed || got[0].Document.Digest != got[1].Document.Digest {
			t.Errorf("got entries %+v, want two in one document", got)
		}
		// A second grant for the same recipient takes the place of the first.
		if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{friend.identity.Recipient()}, o); err != nil {
			t.Error(err)
		}
		if got := entries(t, p, memory, d); len(got) != 2 {
			t.Errorf("%d entries after a grant was repeated", len(got))
		}
	}
}

// TestGrantNeedsAKeyAndAPolicy: it opens the artifact like everybody else.
func TestGrantNeedsAKeyAndAPolicy(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory, d := granted(t, p, true)
	to := []encrypt.Recipient{friend.identity.Recipient()}
	_, err := friend.client(memory).Grant(t.Context(), pinned(d), p.policy(), to, nil)
	refused(t, err, modelsec.ErrNoKey)
	_, err = p.client(memory).Grant(t.Context(), pinned(d), friend.policy(), to, nil)
	refused(t, err, errPolicy)
	plain := push(t, p.client(memory), repository+":plain", small(), p.options(nil))
	_, err = p.client(memory).Grant(t.Context(), pinned(plain), p.policy(), to, nil)
	refused(t, err, modelsec.ErrConfig)
}

// TestSignedGrantsVouchForNobodyElse: what a stranger wrote is not merged into
// a document that a grant signer signs, with or without a signature of his own.
func TestSignedGrantsVouchForNobodyElse(t *testing.T) {
	p, stranger, friend := newParty(t), newParty(t), newParty(t)
	memory, d := granted(t, p, true)
	s := openShelf(t, memory, repository)
	good := must(encrypt.ParseGrant(s.read(s.manifest(s.referrers(d, grantType)[0]).Layers[0])))
	planted := *good
	planted.Recipients = []encrypt.Stanza{{Type: encrypt.DefaultType, KeyID: "00000000000000000000000000000001", Scope: encrypt.ScopeArtifact, Body: make([]byte, 1264)}}
	s.attach(d, grantType, s.blob(grantType, must(planted.Encode())))
	planted.Recipients[0].KeyID = "00000000000000000000000000000002"
	b := must(planted.Encode())
	vouched := signed(t, stranger, d.Digest, must(provenanceGrant(b)))
	s.attach(d, grantType, s.blob(grantType, b), s.blob("application/vnd.dev.sigstore.bundle.v0.3+json", vouched.Bytes()))

	granted, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{friend.identity.Recipient()}, &modelsec.GrantOptions{Signer: p.signer})
	if err != nil {
		t.Fatal(err)
	}
	written := must(encrypt.ParseGrant(s.read(s.manifest(granted).Layers[0])))
	for _, r := range written.Recipients {
		if r.KeyID[:31] == "0000000000000000000000000000000" {
			t.Errorf("the signed document vouches for %s, which a stranger planted", r.KeyID)
		}
	}
	if len(written.Recipients) != 2 {
		t.Errorf("%d entries, want 2", len(written.Recipients))
	}
	for _, who := range []*party{p, friend} {
		if !opens(t, who, p, memory, d) {
			t.Error("a recipient lost access")
		}
	}
}

// TestPlantedEntryDoesNotReplaceAGoodOne: a document of junk under the key id of
// a recipient must not make a merge drop what he opens the artifact with.
func TestPlantedEntryDoesNotReplaceAGoodOne(t *testing.T) {
	p, victim, friend := newParty(t), newParty(t), newParty(t)
	for range 8 { // the order of the listing is that of digests
		memory, d := granted(t, p, false)
		if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{victim.identity.Recipient()}, nil); err != nil {
			t.Fatal(err)
		}
		junkGrants(t, openShelf(t, memory, repository), d, 3, keyID(t, victim, memory, d))
		if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{friend.identity.Recipient()}, nil); err != nil {
			t.Fatal(err)
		}
		for _, who := range []*party{p, victim, friend} {
			if !opens(t, who, p, memory, d) {
				t.Error("a recipient lost access")
			}
		}
	}
}

// TestRevokedRecipientIsGone, and nobody else.
func TestRevokedRecipientIsGone(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	for _, isSigned := range []bool{true, false} {
		memory, d := granted(t, p, isSigned)
		policy := p.policy()
		grant, revoke := &modelsec.GrantOptions{}, &modelsec.RevokeOptions{}
		if isSigned {
			grant.Signer, revoke.Signer, revoke.Policy = p.signer, p.signer, &policy
		}
		c := p.client(memory)
		if _, err := c.Grant(t.Context(), pinned(d), policy, []encrypt.Recipient{friend.identity.Recipient()}, grant); err != nil {
			t.Fatal(err)
		}
		id := keyID(t, friend, memory, d)
		if isSigned {
			refused(t, c.Revoke(t.Context(), pinned(d), nil, id), modelsec.ErrGrantSigned)
		}
		refused(t, c.Revoke(t.Context(), tagged, revoke, id), modelsec.ErrUnpinned)
		refused(t, c.Revoke(t.Context(), pinned(d), revoke), modelsec.ErrConfig)
		refused(t, c.Revoke(t.Context(), pinned(d), revoke, "00000000000000000000000000000000"), registry.ErrNotFound)
		if err := c.Revoke(t.Context(), pinned(d), revoke, id); err != nil {
			t.Fatal(err)
		}
		if opens(t, friend, p, memory, d) || !opens(t, p, p, memory, d) {
			t.Error("the wrong recipient lost access")
		}
		if got := entries(t, p, memory, d); len(got) != 1 || got[0].KeyID == id {
			t.Errorf("got entries %+v", got)
		}
	}
}

// TestRevokeSaysWhereTheRegistryKeepsTheGrant.
func TestRevokeSaysWhereTheRegistryKeepsTheGrant(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	server := ociserver.New()
	server.NoDelete = true
	name := serve(t, server)
	c := p.client(remote())
	d := push(t, c, name+":v3", small(), &modelsec.PushOptions{Recipients: append(p.recipients(), friend.identity.Recipient()), Signer: p.signer})
	ref := name + "@" + string(d.Digest)
	got, err := c.Grants(t.Context(), ref)
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	policy := p.policy()
	err = c.Revoke(t.Context(), ref, &modelsec.RevokeOptions{Signer: p.signer, Policy: &policy}, got[1].KeyID)
	refused(t, err, modelsec.ErrNotRevoked)
	contains(t, err, "publish a new version")
}

// TestReplacesRotatesAKey: one call gives access to the new key and takes it
// from the old.
func TestReplacesRotatesAKey(t *testing.T) {
	p, fresh := newParty(t), newParty(t)
	memory, d := granted(t, p, true)
	old := keyID(t, p, memory, d)
	_, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{fresh.identity.Recipient()}, &modelsec.GrantOptions{Signer: p.signer, Replaces: []string{old}})
	if err != nil {
		t.Fatal(err)
	}
	if opens(t, p, p, memory, d) || !opens(t, fresh, p, memory, d) {
		t.Error("the keys were not exchanged")
	}
	if slices.ContainsFunc(entries(t, p, memory, d), func(e modelsec.GrantEntry) bool { return e.KeyID == old }) {
		t.Error("the old key is still listed")
	}
}

// TestGrantExpires for readers that follow the rules.
func TestGrantExpires(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory, d := granted(t, p, true)
	until := now.Add(time.Hour)
	if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), []encrypt.Recipient{friend.identity.Recipient()}, &modelsec.GrantOptions{NotAfter: until}); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		at   time.Time
		want bool
	}{{until.Add(-time.Minute), true}, {until, true}, {until.Add(time.Second), false}} {
		c := friend.client(memory)
		c.Now = func() time.Time { return test.at }
		m, err := c.Open(t.Context(), pinned(d), p.policy())
		if (err == nil) != test.want {
			t.Errorf("at %v: %v", test.at, err)
		}
		if err == nil {
			m.Close()
		} else if !errors.Is(err, encrypt.ErrExpired) {
			t.Errorf("got %v, want ErrExpired", err)
		}
	}
}
