// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

func TestWrongIdentityIsRefused(t *testing.T) {
	p, stranger := newParty(t), newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	pullFails(t, stranger.client(memory), tagged, p.policy(), modelsec.ErrNoKey)
	pullFails(t, &modelsec.Client{Registry: memory}, tagged, p.policy(), modelsec.ErrNoKey)
}

func TestGrantOfAnotherArtifactIsIgnored(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	mine := push(t, p.client(memory), repository+":mine", small(), p.options(p.recipients()))
	s := openShelf(t, memory, repository)
	stranger := newParty(t)
	secret := push(t, p.client(memory), tagged, small(), p.options(stranger.recipients()))
	for _, g := range s.referrers(mine, grantType) {
		s.attach(secret, grantType, s.manifest(g).Layers...)
	}
	pullFails(t, p.client(memory), tagged, p.policy(), modelsec.ErrNoKey)
}

// TestGrantBoundToAnotherManifestIsRefused is K1: whoever copies our layers,
// index and grants into a manifest that he signs himself does not get our key
// to open them for him.
func TestGrantBoundToAnotherManifestIsRefused(t *testing.T) {
	victim, tenant := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, victim.client(memory), tagged, small(), victim.options(victim.recipients()))
	s := openShelf(t, memory, repository)
	m := s.manifest(d)
	m.Config = s.blob(configType, []byte(`{"x":1}`)) // another digest for the same layers
	copied := s.put(m)
	r := releaseOf(t, memory, d)
	s.bundle(copied, release(t, tenant, copied.Digest, r))
	for _, g := range s.referrers(d, grantType) {
		document := s.read(s.manifest(g).Layers[0])
		s.attach(copied, grantType, s.blob(grantType, document))
		// The clear part can be rewritten, the wrapped part cannot.
		claimed, err := encrypt.ParseGrant(document)
		if err != nil {
			t.Fatal(err)
		}
		claimed.Manifest = copied.Digest
		s.attach(copied, grantType, s.blob(grantType, must(claimed.Encode())))
	}
	c := victim.client(memory) // a shared key service, in effect
	pullFails(t, c, pinned(copied), tenant.policy(), modelsec.ErrNoKey)
	pullFails(t, &modelsec.Client{Registry: memory, Identities: []encrypt.Identity{honest{victim.identity}}}, pinned(copied), tenant.policy(), modelsec.ErrNoKey)
}

// honest unwraps what it is given, and compares nothing by itself.
type honest struct{ *encrypt.HPKEIdentity }

// TestWrappedKeyThatDisagreesIsRefused changes what is inside the wrapped bytes.
func TestWrappedKeyThatDisagreesIsRefused(t *testing.T) {
	for name, f := range map[string]*forgery{
		"ArtifactID": {wrap: func(b *encrypt.Binding) { b.ArtifactID[0] ^= 1 }},
		"Manifest":   {wrap: func(b *encrypt.Binding) { b.Manifest = digestOf(nil) }},
		"NotAfter":   {wrap: func(b *encrypt.Binding) { b.NotAfter = now }, grant: func(g *encrypt.Grant) { g.Recipients[0].NotAfter = time.Time{} }},
		"Extended": {wrap: func(b *encrypt.Binding) { b.NotAfter = now.Add(-time.Hour) },
			grant: func(g *encrypt.Grant) { g.Recipients[0].NotAfter = now.Add(time.Hour) }},
		"Expired": {wrap: func(b *encrypt.Binding) { b.NotAfter = now.Add(-time.Second) }},
		"Body":    {grant: func(g *encrypt.Grant) { g.Recipients[0].Body[1130] ^= 1 }},
		"Type":    {grant: func(g *encrypt.Grant) { g.Recipients[0].Type = "hpke-mlkem1024-p384" }},
		"KeyID":   {grant: func(g *encrypt.Grant) { g.Recipients[0].KeyID = hex.EncodeToString(make([]byte, 16)) }},
		"Commitment": {header: func(h *index.Header) {
			h.Encryption.Commitment = hex.EncodeToString(make([]byte, 32))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParty(t)
			memory := registry.NewMemory()
			g := *f
			g.by, g.profile, g.layers = p, index.Encrypted, twoFiles()
			g.push(t, memory)
			c := p.client(memory)
			c.Now = func() time.Time { return now }
			err := pullFails(t, c, tagged, p.policy(), modelsec.ErrNoKey)
			if name == "Expired" && !errors.Is(err, encrypt.ErrExpired) {
				t.Errorf("got %v, want ErrExpired", err)
			}
		})
	}
}

// junkGrants fills the listing of an artifact with grant documents that
// anybody could have written: for the right artifact, with the key id of the
// victim where it is known.
func junkGrants(t *testing.T, s shelf, d ocispec.Descriptor, n int, keyID string) {
	t.Helper()
	var good *encrypt.Grant
	for _, g := range s.referrers(d, grantType) {
		good = must(encrypt.ParseGrant(s.read(s.manifest(g).Layers[0])))
	}
	for i := range n {
		body := make([]byte, 1264)
		rand.Read(body)
		junk := *good
		junk.Recipients = []encrypt.Stanza{{Type: encrypt.DefaultType, KeyID: keyID, Scope: encrypt.ScopeArtifact, Body: body}}
		if i%2 == 0 {
			junk.Recipients[0].KeyID = fmt.Sprintf("%032x", i)
		}
		s.attach(d, grantType, s.blob(grantType, must(junk.Encode())))
	}
}

// TestUnsignedGrantIsNotShownToServices: nobody but a grant signer of the
// policy makes a key service do anything.
func TestUnsignedGrantIsNotShownToServices(t *testing.T) {
	p, granter := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	s := openShelf(t, memory, repository)
	for _, r := range s.referrers(d, grantType) {
		doc := s.manifest(r).Layers[0]
		if err := s.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		s.attach(d, grantType, doc) // the same document, without its signature
	}
	remote := &service{Identity: p.identity}
	c := p.client(memory)
	c.Identities = []encrypt.Identity{remote}
	pullFails(t, c, tagged, p.policy(), modelsec.ErrNoKey)

	// Nor does somebody else's signature, until the policy names him.
	policy := p.policy()
	if _, err := p.client(memory).Grant(t.Context(), pinned(d), policy, p.recipients(), &modelsec.GrantOptions{Signer: granter.signer}); err != nil {
		t.Fatal(err)
	}
	pullFails(t, c, tagged, policy, modelsec.ErrNoKey)
	if n := remote.calls.Load(); n != 0 {
		t.Errorf("the service was called %d times for grants that the policy does not know", n)
	}
	policy.Rules[0].GrantSigners = append(policy.Rules[0].GrantSigners, granter.principal(t))
	if _, err := c.Pull(t.Context(), tagged, filepath.Join(t.TempDir(), "model"), policy, nil); err != nil {
		t.Error(err)
	}
}

// TestThousandRecipientsCostOneUnwrap: the entry is found by its key id.
func TestThousandRecipientsCostOneUnwrap(t *testing.T) {
	p := newParty(t)
	to := make([]encrypt.Recipient, 0, 1000)
	for range 10 {
		to = append(to, must(encrypt.GenerateIdentity("")).Recipient())
	}
	for len(to) < 999 {
		to = append(to, bogus{byte(len(to)), byte(len(to) >> 8)})
	}
	to = append(to, p.identity.Recipient())
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(to))
	local := &counted{HPKEIdentity: p.identity}
	c := p.client(memory)
	c.Identities = []encrypt.Identity{local}
	m, err := c.Open(t.Context(), tagged, p.policy())
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if local.calls != 1 {
		t.Errorf("one of 1,000 recipients was asked %d times", local.calls)
	}
	to = append(to, newParty(t).identity.Recipient())
	if _, err := p.client(memory).Push(t.Context(), tagged, small(), p.options(to)); err == nil {
		t.Error("1,001 recipients were accepted")
	}
}

// counted is a local key that counts.
type counted struct {
	*encrypt.HPKEIdentity
	calls int
}

func (c *counted) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	c.calls++
	return c.HPKEIdentity.Unwrap(ctx, s, b)
}

// bogus is a recipient whose entry looks like any other.
type bogus [2]byte

func (bogus) Class() encrypt.WrapClass { return encrypt.PostQuantum }

func (r bogus) Wrap(_ context.Context, _ []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	body := make([]byte, 1264)
	rand.Read(body)
	return encrypt.Stanza{Type: encrypt.DefaultType, KeyID: b.KeyID(encrypt.DefaultType, r[:]), Body: body}, nil
}

// TestRecipientIDsOfTwoArtifactsDiffer is K33: a reader of the registry cannot
// tell that two artifacts are for the same recipient.
func TestRecipientIDsOfTwoArtifactsDiffer(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	seen := make(map[string]bool)
	for _, tag := range []string{":a", ":b"} {
		push(t, p.client(memory), repository+tag, small(), p.options(p.recipients()))
		entries, err := p.client(memory).Grants(t.Context(), repository+tag)
		if err != nil || len(entries) != 1 {
			t.Fatal(entries, err)
		}
		if seen[entries[0].KeyID] {
			t.Error("two artifacts name a recipient by the same id")
		}
		seen[entries[0].KeyID] = true
	}
}

// TestWeakRecipientsNeedAReason is K30.
func TestWeakRecipientsNeedAReason(t *testing.T) {
	p := newParty(t)
	weak := []encrypt.Recipient{must(encrypt.GenerateIdentity(encrypt.TypeP256)).Recipient()}
	memory := registry.NewMemory()
	c := p.client(memory)
	_, err := c.Push(t.Context(), tagged, small(), p.options(weak))
	refused(t, err, modelsec.ErrConfig)
	d := push(t, c, tagged, small(), p.options(p.recipients()))
	_, err = c.Grant(t.Context(), pinned(d), p.policy(), weak, nil)
	refused(t, err, modelsec.ErrConfig)
	if _, err := c.Grant(t.Context(), pinned(d), p.policy(), weak, &modelsec.GrantOptions{AllowClassical: "a module without ML-KEM"}); err != nil {
		t.Error(err)
	}
	o := p.options(append(weak, p.recipients()...))
	o.AllowClassical = "a module without ML-KEM"
	if d, err = c.Push(t.Context(), tagged, small(), o); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Grant(t.Context(), pinned(d), p.policy(), weak, nil); err != nil {
		t.Errorf("the publisher allowed weak recipients: %v", err)
	}
}
