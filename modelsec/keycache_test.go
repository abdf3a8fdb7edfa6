// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"fmt"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// TestKeptKeyEndsWithItsLifetime, and with the grant that held it. Until then
// the key service is not asked, and the policy is.
func TestKeptKeyEndsWithItsLifetime(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newParty(t)
		memory, d := granted(t, p, true)
		until := time.Now().Add(time.Hour)
		if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), p.recipients(), &modelsec.GrantOptions{Signer: p.signer, NotAfter: until}); err != nil {
			t.Fatal(err)
		}
		remote := &service{Identity: p.identity}
		open := func(c *modelsec.Client, policy provenance.Policy) error {
			m, err := c.Open(t.Context(), pinned(d), policy)
			if err == nil {
				err = m.Close()
			}
			return err
		}
		check := func(c *modelsec.Client, calls int64) {
			t.Helper()
			if err := open(c, p.policy()); err != nil {
				t.Error(err)
			}
			if got := remote.calls.Load(); got != calls {
				t.Errorf("the service was asked %d times, want %d", got, calls)
			}
		}
		c := p.client(memory)
		c.Identities, c.KeyLifetime = []encrypt.Identity{remote}, 10*time.Minute
		check(c, 1)
		check(c, 1)
		refused(t, open(c, newParty(t).policy()), errPolicy)
		time.Sleep(10*time.Minute + time.Second)
		settle()
		if n := modelsec.KeptKeys(c); n != 0 {
			t.Errorf("%d keys are kept after their time", n)
		}
		check(c, 2)

		long := p.client(memory)
		long.Identities, long.KeyLifetime = []encrypt.Identity{remote}, 10*time.Hour
		check(long, 3)
		time.Sleep(2 * time.Hour)
		refused(t, open(long, p.policy()), encrypt.ErrExpired)
		time.Sleep(10 * time.Hour)

		none := p.client(memory)
		none.Now = func() time.Time { return until }
		check2 := open(none, p.policy())
		if n := modelsec.KeptKeys(none); n != 0 || check2 != nil {
			t.Errorf("%d keys are kept without being asked, error %v", n, check2)
		}
	})
}

// TestKeptKeysAreBounded: the oldest of 65 goes.
func TestKeptKeysAreBounded(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	remote := &service{Identity: p.identity}
	c := p.client(memory)
	c.Identities, c.KeyLifetime = []encrypt.Identity{remote}, time.Hour
	open := func(d ocispec.Descriptor) {
		t.Helper()
		m, err := c.Open(t.Context(), pinned(d), p.policy())
		if err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
	var all []ocispec.Descriptor
	for i := range 65 {
		all = append(all, push(t, p.client(memory), fmt.Sprintf("%s:v%d", repository, i), small(), p.options(p.recipients())))
		open(all[i])
	}
	if n := modelsec.KeptKeys(c); n != 64 {
		t.Errorf("%d keys are kept", n)
	}
	open(all[64])
	open(all[1])
	if n := remote.calls.Load(); n != 65 {
		t.Errorf("asked %d times, want 65", n)
	}
	open(all[0])
	if n := remote.calls.Load(); n != 66 {
		t.Errorf("asked %d times, want 66: the oldest was kept", n)
	}
}
