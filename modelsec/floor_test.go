// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// floors remembers sequences in memory.
type floors struct {
	mu   sync.Mutex
	seen map[string]uint64
	err  error
}

func (f *floors) Advance(_ context.Context, name string, sequence uint64) (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.seen[name]
	if f.seen == nil {
		f.seen = make(map[string]uint64)
	}
	f.seen[name] = max(before, sequence)
	return before, f.err
}

// TestFloorRefusesAnOlderRelease: what this machine has opened once is not
// followed by something older under the same tag.
func TestFloorRefusesAnOlderRelease(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	o := p.options(nil)
	o.Sequence = 5
	older := push(t, p.client(memory), tagged, small(), o)
	o.Sequence = 6
	push(t, p.client(memory), tagged, large(), o)
	c := p.client(memory)
	c.Floors = &floors{}
	if _, err := c.Verify(t.Context(), tagged, p.policy()); err != nil {
		t.Fatal(err)
	}
	if err := openShelf(t, memory, repository).Tag(t.Context(), older, "v3"); err != nil {
		t.Fatal(err)
	}
	pullFails(t, c, tagged, p.policy(), errPolicy)
	c.Floors.(*floors).err = errors.New("disk full")
	if _, err := c.Verify(t.Context(), tagged, p.policy()); err == nil {
		t.Error("floors that cannot be kept are no reason to go on")
	}
}

// TestFloorHearsOnlyWhoMayRelease: a principal that the policy trusts with
// grants, and none that it does not trust at all, can neither lift an old
// release over the floor nor put the floor out of reach.
func TestFloorHearsOnlyWhoMayRelease(t *testing.T) {
	p, granter := newParty(t), newParty(t)
	policy := p.policy()
	policy.Rules[0].GrantSigners = append(policy.Rules[0].GrantSigners, p.principal(t), granter.principal(t))
	memory := registry.NewMemory()
	o := p.options(nil)
	o.Sequence = 5
	older := push(t, p.client(memory), tagged, small(), o)
	o.Sequence = 6
	newer := push(t, p.client(memory), tagged, large(), o)
	c := p.client(memory)
	c.Floors = &floors{}
	// A key service's signer vouches for a sequence of his own.
	s := openShelf(t, memory, repository)
	r := releaseOf(t, memory, newer)
	r.Sequence = 1 << 50
	s.bundle(newer, release(t, granter, newer.Digest, r))
	if _, err := c.Verify(t.Context(), tagged, policy); err != nil {
		t.Fatal(err)
	}
	if got := c.Floors.(*floors).seen["team/llama"]; got != 6 {
		t.Errorf("the floor is at %d, want 6", got)
	}
	r = releaseOf(t, memory, older)
	r.Sequence = 1 << 51
	s.bundle(older, release(t, granter, older.Digest, r))
	if err := s.Tag(t.Context(), older, "v3"); err != nil {
		t.Fatal(err)
	}
	pullFails(t, c, tagged, policy, errPolicy)
}

// TestFloorIsNotMovedByAPolicyThatChecksNothing.
func TestFloorIsNotMovedByAPolicyThatChecksNothing(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(nil))
	c := p.client(memory)
	c.Floors = &floors{}
	if _, err := c.Verify(t.Context(), tagged, provenance.UnsafeAcceptUnsigned("a test").For(repository)); err != nil {
		t.Fatal(err)
	}
	if len(c.Floors.(*floors).seen) != 0 {
		t.Errorf("floors are at %v", c.Floors.(*floors).seen)
	}
}

// TestMinSequenceRefusesAnOlderRelease needs no state on this machine.
func TestMinSequenceRefusesAnOlderRelease(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	o := p.options(nil)
	o.Sequence = 5
	d := push(t, p.client(memory), tagged, small(), o)
	policy := p.policy()
	policy.Rules[0].MinSequence = 6
	for _, ref := range []string{tagged, pinned(d)} {
		pullFails(t, p.client(memory), ref, policy, errPolicy)
	}
	policy.Rules[0].MinSequence = 5
	report, err := p.client(memory).Verify(t.Context(), tagged, policy)
	if err != nil || report.Rollback != "protected" {
		t.Errorf("got %v, rollback %q", err, report.Rollback)
	}
}

// TestEncryptedRuleRefusesPlainArtifacts is K34 seen from the policy.
func TestEncryptedRuleRefusesPlainArtifacts(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(nil))
	policy := provenance.Policy{Rules: []provenance.Rule{{Repositories: []string{"*"}, Encrypted: true,
		Require: []provenance.Requirement{{Signers: []provenance.Principal{p.principal(t)}}}}}}
	pullFails(t, p.client(memory), tagged, policy, errPolicy)
	push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	if _, err := p.client(memory).Verify(t.Context(), tagged, policy); err != nil {
		t.Error(err)
	}
	var e *modelsec.Error
	if _, err := (&modelsec.Client{Registry: memory}).Open(t.Context(), tagged, policy); !errors.As(err, &e) || e.Op != "open" {
		t.Errorf("got %v", err)
	}
}
