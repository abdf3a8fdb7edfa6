// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
	"slices"
)

// maxLevel is the highest build level of SLSA 1.x; maxKeyLevel is what a
// signature by a plain key can prove, since nothing says where the key was used
// (RULES K19).
const (
	maxLevel    = 3
	maxKeyLevel = 1
)

// BuilderLevel says who speaks for a builder, and which SLSA build level its
// provenance then has. Provenance itself never says its level.
type BuilderLevel struct {
	// ID is runDetails.builder.id, exact.
	ID string
	// Signers sign for the builder, at least one.
	Signers []Principal
	// Level is 1 to 3; 1 where a signer is a key.
	Level int
}

func (c *compiled) builders(table []BuilderLevel) error {
	heard := make(map[string]circle)
	for i, b := range table {
		if heard[b.ID] == nil {
			heard[b.ID] = circle{}
		}
		if err := c.builder(b, heard[b.ID]); err != nil {
			return fmt.Errorf("builder %d: %w", i, err)
		}
	}
	return nil
}

func (c *compiled) builder(b BuilderLevel, heard circle) error {
	if b.ID == "" || !printable(b.ID) {
		return fmt.Errorf("id %q: want the exact id", clip(b.ID))
	}
	if b.Level < 1 || b.Level > maxLevel {
		return fmt.Errorf("level %d: want 1 to %d", b.Level, maxLevel)
	}
	if len(b.Signers) == 0 {
		return errors.New("no signers: name at least one principal")
	}
	if err := c.signers(b.Signers); err != nil {
		return fmt.Errorf("signers: %w", err)
	}
	for _, s := range b.Signers {
		if s.Key != "" && b.Level > maxKeyLevel {
			return fmt.Errorf("level %d for the key %s: a key alone proves level %d at most, since nothing says where it was used", b.Level, s, maxKeyLevel)
		}
		if heard.has(s) {
			return fmt.Errorf("%s signs for %q in two entries", s, clip(b.ID))
		}
		heard.add(s)
	}
	return nil
}

// circle is a set of principals, each valid, that overlaps can be looked up in.
type circle map[[3]string][]party

func (s circle) add(list ...Principal) {
	for _, p := range list {
		if a, err := p.party(); err == nil {
			s[a.kin()] = append(s[a.kin()], a)
		}
	}
}

// has reports whether somebody in the circle could be the signer that p is.
func (s circle) has(p Principal) bool {
	a, err := p.party()
	return err == nil && slices.ContainsFunc(s[a.kin()], a.overlaps)
}

// among returns the principal of a list that a proven signer is.
func (a party) among(list []Principal) (Principal, bool) {
	for _, p := range list {
		if b, err := p.party(); err == nil && b.matches(a) {
			return p, true
		}
	}
	return Principal{}, false
}

// level is what the table says of a builder whose word this signer gives, and
// whether the table knows the builder at all.
func (p Policy) level(id string, signer party) (level int, known bool) {
	for _, b := range p.Builders {
		if b.ID != id {
			continue
		}
		known = true
		if _, ok := signer.among(b.Signers); ok {
			return b.Level, true
		}
	}
	return 0, known
}
