// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// stock pushes versions v0, v1, … for p, and one without a tag at the end.
func stock(t *testing.T, p *party, memory *registry.Memory, n int) (all []ocispec.Descriptor) {
	t.Helper()
	for i := range n + 1 {
		all = append(all, push(t, p.client(memory), fmt.Sprintf("%s:v%d", repository, i), small(), p.options(p.recipients())))
	}
	s := openShelf(t, memory, repository)
	if err := s.Tag(t.Context(), all[0], fmt.Sprint("v", n)); err != nil {
		t.Fatal(err)
	}
	return all
}

func rotation(p, fresh *party) *modelsec.RotateOptions {
	return &modelsec.RotateOptions{Old: p.identity.Recipient(), New: fresh.recipients(), Signer: p.signer}
}

func rotated(all []modelsec.Rotated) (list []modelsec.Outcome) {
	for _, r := range all {
		list = append(list, r.Outcome)
	}
	return list
}

// TestRotateReplacesAKeyEverywhere: in every version with a tag and in those
// given by digest, and nothing else changes.
func TestRotateReplacesAKeyEverywhere(t *testing.T) {
	p, fresh := newParty(t), newParty(t)
	memory := registry.NewMemory()
	all := stock(t, p, memory, 3)
	push(t, p.client(memory), repository+":plain", small(), p.options(nil))
	push(t, newParty(t).client(memory), repository+":theirs", small(), p.options(newParty(t).recipients()))
	openShelf(t, memory, repository).Tag(t.Context(), all[2], "latest")

	c := p.client(memory)
	o := rotation(p, fresh)
	o.Digests = []digest.Digest{all[3].Digest, all[0].Digest}
	var seen []modelsec.Outcome
	o.Each = func(r modelsec.Rotated) { seen = append(seen, r.Outcome) }
	got, err := c.Rotate(t.Context(), repository, p.policy(), o)
	if err != nil {
		t.Fatal(err)
	}
	counts := make(map[modelsec.Outcome]int)
	for _, r := range got {
		counts[r.Outcome]++
		if r.Digest == all[2].Digest && !slices.Equal(r.Tags, []string{"latest", "v2"}) {
			t.Errorf("tags %v", r.Tags)
		}
	}
	if counts[modelsec.OutcomeReplaced] != 4 || counts[modelsec.OutcomeAbsent] != 1 || counts[modelsec.OutcomeNotEncrypted] != 1 || len(got) != 6 || !slices.Equal(seen, rotated(got)) {
		t.Errorf("got %v, told %v", rotated(got), seen)
	}
	for _, d := range all {
		if opens(t, p, p, memory, d) || !opens(t, fresh, p, memory, d) {
			t.Error("the keys were not exchanged")
		}
	}
	got, err = c.Rotate(t.Context(), repository, p.policy(), o)
	if err != nil || slices.Contains(rotated(got), modelsec.OutcomeReplaced) {
		t.Errorf("again: %v, %v", rotated(got), err)
	}
	_, err = c.Rotate(t.Context(), repository, p.policy(), &modelsec.RotateOptions{Old: p.identity})
	refused(t, err, modelsec.ErrConfig)
}

// TestRotateOfOneVersion leaves the others alone.
func TestRotateOfOneVersion(t *testing.T) {
	p, fresh := newParty(t), newParty(t)
	memory := registry.NewMemory()
	all := stock(t, p, memory, 1)
	for i, ref := range []string{repository + ":v0", pinned(all[1])} {
		got, err := p.client(memory).Rotate(t.Context(), ref, p.policy(), rotation(p, fresh))
		if err != nil || len(got) != 1 || got[0].Digest != all[i].Digest || got[0].Outcome != modelsec.OutcomeReplaced {
			t.Fatal(ref, got, err)
		}
		for j, d := range all {
			if opens(t, fresh, p, memory, d) != (j <= i) {
				t.Errorf("after %s the new key opens version %d: %v", ref, j, j > i)
			}
		}
	}
}

// TestRotateGivesWhatTheOldKeyHad and no more: not the time and the files that
// an entry claims which somebody planted.
func TestRotateGivesWhatTheOldKeyHad(t *testing.T) {
	p, customer, fresh := newParty(t), newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, large(), p.options(p.recipients()))
	until := now.Add(time.Hour)
	for _, g := range []modelsec.GrantOptions{{Files: []string{shard}, NotAfter: until}, {Files: []string{otherShard}, NotAfter: now.Add(-time.Hour)}} {
		g.Signer = p.signer
		if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), customer.recipients(), &g); err != nil {
			t.Fatal(err)
		}
	}
	o := rotation(customer, fresh)
	o.Signer = p.signer
	admin := p.client(memory)
	admin.Now = func() time.Time { return now }
	// The customer plants an entry that claims the whole model.
	junkGrants(t, openShelf(t, memory, repository), d, 2, keyID(t, customer, memory, d))

	_, err := admin.Rotate(t.Context(), repository, p.policy(), o)
	refused(t, err, modelsec.ErrNotRotated)
	contains(t, err, "1 of 1", "only it can say which")
	admin.Identities = append(admin.Identities, customer.identity)
	if got, err := admin.Rotate(t.Context(), repository, p.policy(), o); err != nil || got[0].Outcome != modelsec.OutcomeReplaced {
		t.Fatal(got, err)
	}
	var mine []modelsec.GrantEntry
	for _, e := range entries(t, p, memory, d) {
		switch e.KeyID {
		case keyID(t, fresh, memory, d):
			mine = append(mine, e)
		case keyID(t, customer, memory, d):
			t.Errorf("the old key is still listed: %+v", e)
		}
	}
	if len(mine) != 1 || mine[0].Scope != "files" || !mine[0].NotAfter.Equal(until) {
		t.Errorf("the new key has %+v", mine)
	}
	c := fresh.client(memory)
	c.Now = admin.Now
	if m, err := c.OpenFiles(t.Context(), pinned(d), p.policy(), shard); err != nil || len(listed(m)) != 1 {
		t.Errorf("the shard: %v", err)
	}
	for _, name := range []string{otherShard, "config.json"} {
		_, err := c.OpenFiles(t.Context(), pinned(d), p.policy(), name)
		refused(t, err, modelsec.ErrNoKey)
	}
}

// TestRotateKeepsTheExpiry of a whole grant, unless another is asked for, and
// leaves an expired one alone.
func TestRotateKeepsTheExpiry(t *testing.T) {
	until := now.Add(time.Hour)
	for _, test := range []struct {
		at, notAfter, want time.Time
		outcome            modelsec.Outcome
	}{
		{now, time.Time{}, until, modelsec.OutcomeReplaced},
		{now, now.Add(time.Minute), now.Add(time.Minute), modelsec.OutcomeReplaced},
		{until.Add(time.Second), time.Time{}, until, modelsec.OutcomeExpired},
	} {
		p, customer, fresh := newParty(t), newParty(t), newParty(t)
		memory, d := granted(t, p, true)
		if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), customer.recipients(), &modelsec.GrantOptions{NotAfter: until, Signer: p.signer}); err != nil {
			t.Fatal(err)
		}
		o := rotation(customer, fresh)
		o.Signer, o.NotAfter = p.signer, test.notAfter
		c := p.client(memory)
		c.Now = func() time.Time { return test.at }
		got, err := c.Rotate(t.Context(), repository, p.policy(), o)
		if err != nil || got[0].Outcome != test.outcome {
			t.Fatal(got, err)
		}
		who := fresh
		if test.outcome == modelsec.OutcomeExpired {
			who = customer
		}
		id := keyID(t, who, memory, d)
		i := slices.IndexFunc(entries(t, p, memory, d), func(e modelsec.GrantEntry) bool { return e.KeyID == id })
		if i < 0 || !entries(t, p, memory, d)[i].NotAfter.Equal(test.want) {
			t.Errorf("%v: entries %+v", test.outcome, entries(t, p, memory, d))
		}
	}
}

// TestRotateOfUnsignedGrants works for the key that opens the artifact, whose
// entry thereby proves itself, and for no other.
func TestRotateOfUnsignedGrants(t *testing.T) {
	p, fresh, customer := newParty(t), newParty(t), newParty(t)
	memory, d := granted(t, p, false)
	if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), customer.recipients(), nil); err != nil {
		t.Fatal(err)
	}
	o := rotation(customer, fresh)
	o.Signer = nil
	_, err := p.client(memory).Rotate(t.Context(), repository, p.policy(), o)
	refused(t, err, modelsec.ErrNotRotated)
	contains(t, err, "anybody's word")
	o.Old = p.identity
	if got, err := p.client(memory).Rotate(t.Context(), repository, p.policy(), o); err != nil || got[0].Outcome != modelsec.OutcomeReplaced {
		t.Fatal(got, err)
	}
	if opens(t, p, p, memory, d) || !opens(t, fresh, p, memory, d) || !opens(t, customer, p, memory, d) {
		t.Error("the keys were not exchanged")
	}
}

// TestRotateGoesOn after a version that failed, and from the journal, without a
// request to the key service for what is done.
func TestRotateGoesOn(t *testing.T) {
	p, fresh := newParty(t), newParty(t)
	memory := registry.NewMemory()
	all := stock(t, p, memory, 9)
	remote := &service{Identity: p.identity}
	fails := &failing{Identity: remote, at: 4}
	c := p.client(memory)
	c.Identities = []encrypt.Identity{fails}
	o := rotation(p, fresh)
	o.Digests = []digest.Digest{all[9].Digest}
	o.Journal = filepath.Join(t.TempDir(), "rotation")
	got, err := c.Rotate(t.Context(), repository, p.policy(), o)
	refused(t, err, modelsec.ErrNotRotated)
	refused(t, err, encrypt.ErrDenied)
	if failed := slices.IndexFunc(got, func(r modelsec.Rotated) bool { return r.Outcome == modelsec.OutcomeFailed }); len(got) != 10 || failed != 3 || got[3].Err == nil || remote.calls.Load() != 9 {
		t.Fatalf("got %v after %d calls", rotated(got), remote.calls.Load())
	}
	// A crash may have torn the last line; nothing else is lost by that.
	text := must(os.ReadFile(o.Journal))
	if err := os.WriteFile(o.Journal, text[:len(text)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err = c.Rotate(t.Context(), repository, p.policy(), o); err != nil || remote.calls.Load() != 10 {
		t.Fatal(rotated(got), err, remote.calls.Load())
	}
	want := slices.Repeat([]modelsec.Outcome{modelsec.OutcomeBefore}, 10)
	want[3], want[9] = modelsec.OutcomeReplaced, modelsec.OutcomeAbsent
	if !slices.Equal(rotated(got), want) {
		t.Errorf("got %v", rotated(got))
	}
	other := *o
	other.New = newParty(t).recipients()
	_, err = c.Rotate(t.Context(), repository, p.policy(), &other)
	refused(t, err, modelsec.ErrConfig)
	contains(t, err, "another rotation")
	for _, text := range []string{"x\n", "{}\n", "some file", `{"rotation":2`} {
		if err := os.WriteFile(o.Journal, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = c.Rotate(t.Context(), repository, p.policy(), o)
		refused(t, err, modelsec.ErrConfig)
		if got := string(must(os.ReadFile(o.Journal))); got != text {
			t.Errorf("a file that is no journal was written over: %q", got)
		}
	}
}

// failing denies one call.
type failing struct {
	encrypt.Identity
	calls, at int
}

func (f *failing) CallsOut() bool { return true }

func (f *failing) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if f.calls++; f.calls == f.at {
		return nil, fmt.Errorf("%w: status 403", encrypt.ErrDenied)
	}
	return f.Identity.Unwrap(ctx, s, b)
}

// TestReviewSaysWhoCanOpenWhat in every version, and what it does not know.
func TestReviewSaysWhoCanOpenWhat(t *testing.T) {
	p, customer, stranger := newParty(t), newParty(t), newParty(t)
	memory := registry.NewMemory()
	all := stock(t, p, memory, 1)
	push(t, p.client(memory), repository+":plain", small(), p.options(nil))
	until := now.Add(time.Hour)
	c := p.client(memory)
	if _, err := c.Grant(t.Context(), pinned(all[0]), p.policy(), customer.recipients(), &modelsec.GrantOptions{NotAfter: until, Signer: p.signer, Files: []string{"config.json"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Grant(t.Context(), pinned(all[0]), p.policy(), stranger.recipients(), &modelsec.GrantOptions{Signer: stranger.signer}); err != nil {
		t.Fatal(err)
	}
	policy := p.policy()
	lost := digest.FromString("lost")
	got, err := (&modelsec.Client{Registry: memory}).Review(t.Context(), repository, &modelsec.ReviewOptions{
		Policy: &policy, Digests: []digest.Digest{all[1].Digest, lost},
		Known: map[string]encrypt.Keyed{"ours": p.identity.Recipient(), "a customer": customer.identity},
	})
	if err != nil || len(got) != 4 {
		t.Fatal(got, err)
	}
	text := ""
	for _, r := range got {
		text += fmt.Sprint(r.Tags, r.Encrypted, r.Err != nil)
		slices.SortFunc(r.Grants, func(a, b modelsec.GrantEntry) int { return strings.Compare(a.Recipient, b.Recipient) })
		for _, g := range r.Grants {
			text += fmt.Sprint(" ", g.Recipient, "/", g.Scope, "/", g.NotAfter.Equal(until), "/", g.Vouched)
		}
		text += "\n"
	}
	want := `[plain] false false
[v0 v1] true false /artifact/false/false a customer/files/true/true ours/artifact/false/true
[] true false ours/artifact/false/true
[] false true
`
	if text != want {
		t.Errorf("got\n%swant\n%s", text, want)
	}
	if !errors.Is(got[3].Err, registry.ErrNotFound) {
		t.Errorf("the lost version: %v", got[3].Err)
	}
}
