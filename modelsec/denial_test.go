// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const denialSource = "registry.example.com/security/denials:latest"

// watched is a publisher under a policy that heeds a denial list and knows
// models by their plaintext.
type watched struct {
	*party
	security *party
	memory   registry.Opener
	rules    provenance.Policy
	clock    time.Time
}

func newWatched(t testing.TB) *watched {
	w := &watched{party: newParty(t), security: newParty(t), memory: registry.NewMemory(), clock: now}
	signers := []provenance.Principal{w.principal(t)}
	w.rules = provenance.Policy{
		Denials: []provenance.DenialSource{{Name: "acme", Signers: []provenance.Principal{w.security.principal(t)}, Source: denialSource}},
		Rules: []provenance.Rule{{Repositories: []string{"registry.example.com/team/*"}, Plaintext: &provenance.PlaintextRule{Signers: signers},
			Require: []provenance.Requirement{{PredicateType: provenance.PredicateRelease, Signers: signers}}}},
	}
	return w
}

func (w *watched) client() *modelsec.Client {
	c := w.party.client(w.memory)
	c.Now = func() time.Time { return w.clock }
	return c
}

// pushBound pushes a model with the statement of its plaintext.
func (w *watched) pushBound(t testing.TB, ref string) digest.Digest {
	t.Helper()
	o := w.options(w.recipients())
	root := must(modelsec.PlaintextRoot(t.Context(), small(), o))
	o.Statements = []provenance.Statement{must(provenance.NewPlaintext(provenance.Plaintext{Root: root}))}
	return push(t, w.client(), ref, small(), o).Digest
}

func (w *watched) list(sequence uint64, entries ...provenance.Denial) provenance.DenialList {
	return provenance.DenialList{Name: "acme", Sequence: sequence, Issued: w.clock, Expires: w.clock.Add(24 * time.Hour), Entries: entries}
}

func (w *watched) publish(t testing.TB, l provenance.DenialList) {
	t.Helper()
	if _, err := w.client().PublishDenials(t.Context(), denialSource, w.security.signer, l); err != nil {
		t.Fatal(err)
	}
}

// verifies demands that the policy admits ref, or refuses it and says the words.
func (w *watched) verifies(t testing.TB, ref string, words ...string) {
	t.Helper()
	_, err := w.client().Verify(t.Context(), ref, w.rules)
	if len(words) == 0 {
		if err != nil {
			t.Error(err)
		}
		return
	}
	refused(t, err, errPolicy)
	contains(t, err, words...)
}

func TestK28WithoutADenialListInForceNothingOpens(t *testing.T) {
	w := newWatched(t)
	w.pushBound(t, tagged)
	w.verifies(t, tagged, "denials.current", "no list")
	w.publish(t, w.list(1))
	w.verifies(t, tagged)
	pulled := filepath.Join(t.TempDir(), "model")
	if _, err := w.client().Pull(t.Context(), tagged, pulled, w.rules, nil); err != nil {
		t.Fatal(err)
	}
	w.clock = w.clock.Add(25 * time.Hour)
	w.verifies(t, tagged, "denials.current", "expired")
	w.clock = w.clock.Add(-49 * time.Hour)
	w.verifies(t, tagged, "denials.current", "ahead of the clock")
}

// TestK29RevocationFindsAModelAgain: by digest, and by its plaintext once it is
// encrypted anew.
func TestK29RevocationFindsAModelAgain(t *testing.T) {
	w := newWatched(t)
	first := w.pushBound(t, tagged)
	w.publish(t, w.list(1))
	w.verifies(t, tagged)
	w.publish(t, w.list(2, provenance.Denial{Digest: first, Reason: "it leaked"}))
	w.verifies(t, tagged, "denied.digest", "it leaked")
	second := w.pushBound(t, tagged)
	if first == second {
		t.Fatal("two encryptions have one digest")
	}
	w.verifies(t, tagged)
	root := must(modelsec.PlaintextRoot(t.Context(), small(), nil))
	w.publish(t, w.list(3, provenance.Denial{Plaintext: root, Reason: "it leaked"}))
	w.verifies(t, tagged, "denied.plaintext", "it leaked")
	third := w.pushBound(t, tagged)
	w.verifies(t, repository+"@"+string(third), "denied.plaintext")
	// Left away, the statement is missed.
	push(t, w.client(), tagged, small(), w.options(w.recipients()))
	w.verifies(t, tagged, "plaintext.predicateType")
}

func TestFault43ARevokedKeyOpensNothingMore(t *testing.T) {
	w := newWatched(t)
	w.pushBound(t, tagged)
	w.publish(t, w.list(1, provenance.Denial{Key: must(provenance.KeyID(w.key.Public()))}))
	w.verifies(t, tagged, "denied.signer")
}

// TestDenialListsAreHeardFromTheirSignersAlone, whoever can write their source.
func TestDenialListsAreHeardFromTheirSignersAlone(t *testing.T) {
	w := newWatched(t)
	w.pushBound(t, tagged)
	if _, err := w.client().PublishDenials(t.Context(), denialSource, w.signer, w.list(9)); err != nil {
		t.Fatal(err)
	}
	w.verifies(t, tagged, "denials.current")
	// Given by the caller it counts although the source has nothing of worth.
	st := must(provenance.NewDenials(w.list(1)))
	given := signed(t, w.security, w.list(1).Subject(), st)
	c := w.client()
	c.Bundles = []*provenance.Bundle{given}
	if _, err := c.Verify(t.Context(), tagged, w.rules); err != nil {
		t.Error(err)
	}
}

// unreachable fails for one repository as a registry that is down does.
type unreachable struct {
	registry.Opener
	name string
}

type downError struct{}

func (downError) Error() string   { return "503 Service Unavailable" }
func (downError) Temporary() bool { return true }

func (u unreachable) Open(ctx context.Context, name string) (registry.Store, error) {
	if name == u.name {
		return nil, downError{}
	}
	return u.Opener.Open(ctx, name)
}

func TestASourceThatIsDownIsNoRefusal(t *testing.T) {
	w := newWatched(t)
	w.pushBound(t, tagged)
	w.memory = unreachable{w.memory, strings.TrimSuffix(denialSource, ":latest")}
	_, err := w.client().Verify(t.Context(), tagged, w.rules)
	var e *modelsec.Error
	if !errors.As(err, &e) || !e.Temporary() || isOneOf(err, errPolicy) {
		t.Errorf("got %v, want an error that may pass", err)
	}
}

func TestPublishDenialsNeedsATag(t *testing.T) {
	w := newWatched(t)
	for _, ref := range []string{"registry.example.com/security/denials", denialSource + "@" + string(digestOf(nil))} {
		_, err := w.client().PublishDenials(t.Context(), ref, w.security.signer, w.list(1))
		refused(t, err, modelsec.ErrConfig)
	}
	_, err := w.client().PublishDenials(t.Context(), denialSource, nil, w.list(1))
	refused(t, err, modelsec.ErrConfig)
	_, err = w.client().PublishDenials(t.Context(), denialSource, w.security.signer, provenance.DenialList{Name: "acme"})
	refused(t, err, provenance.ErrFormat)
}

// TestGrantsOfADeniedSignerAreNotBelieved: whoever stole the key of a grant
// signer makes no key service work, and gives nobody files by names of his own.
func TestGrantsOfADeniedSignerAreNotBelieved(t *testing.T) {
	w, granter := newWatched(t), newParty(t)
	w.rules.Rules[0].GrantSigners = []provenance.Principal{granter.principal(t)}
	w.publish(t, w.list(1))
	w.pushBound(t, tagged)
	if _, err := w.client().Grant(t.Context(), tagged, w.rules, w.recipients(), &modelsec.GrantOptions{Signer: granter.signer}); err != nil {
		t.Fatal(err)
	}
	remote := &service{Identity: w.identity}
	c := w.client()
	c.Identities = []encrypt.Identity{remote}
	for i, denied := range []*party{newParty(t), granter} {
		w.publish(t, w.list(2+uint64(i), provenance.Denial{Key: must(provenance.KeyID(denied.key.Public()))}))
		m, err := c.Open(t.Context(), tagged, w.rules)
		if denied == granter {
			refused(t, err, modelsec.ErrNoKey)
		} else if err != nil {
			t.Fatal(err)
		} else {
			m.Close()
		}
		reviewed, err := c.Review(t.Context(), tagged, &modelsec.ReviewOptions{Policy: &w.rules})
		if err != nil || reviewed[0].Err != nil || len(reviewed[0].Grants) == 0 {
			t.Fatal(reviewed, err)
		}
		for _, g := range reviewed[0].Grants {
			if g.Vouched && denied == granter {
				t.Errorf("vouched for by a signer who is denied: %+v", g)
			}
		}
	}
	if n := remote.calls.Load(); n != 1 {
		t.Errorf("the service was called %d times", n)
	}
	// Without the list nobody knows who is denied.
	w.clock = w.clock.Add(48 * time.Hour)
	reviewed, err := c.Review(t.Context(), tagged, &modelsec.ReviewOptions{Policy: &w.rules})
	if err != nil || reviewed[0].Err == nil {
		t.Errorf("reviewed without a list in force: %+v, %v", reviewed, err)
	}
}
