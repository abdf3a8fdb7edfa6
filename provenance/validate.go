// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Validate returns an error that wraps ErrPolicy where the policy contradicts
// itself or holds a rule or requirement that could never be met. Evaluate
// refuses everything under such a policy.
func (p Policy) Validate() error {
	_, err := p.compile()
	return err
}

// compiled is what validation learns on its way.
type compiled struct {
	scopes   scopes
	followed scopes  // nil: no lineage is followed
	parties  []party // every distinct principal, named
}

func (p Policy) compile() (*compiled, error) {
	c := &compiled{scopes: scopes{}}
	switch {
	case p.defect != nil:
		return nil, policyErrorf("%w", p.defect)
	case p.unsafe && len(p.Rules) > 0:
		return nil, policyErrorf("UnsafeAcceptUnsigned and rules contradict each other: keep one")
	case p.unsafe:
		return c, nil
	case len(p.Rules) == 0:
		return nil, policyErrorf("no rules: the zero Policy refuses everything; use ParsePolicy, RequireKey or RequireIdentity")
	}
	if len(p.Lineage.Repositories)+p.Lineage.MaxDepth+p.Lineage.MaxArtifacts != 0 {
		if err := c.lineage(p.Lineage); err != nil {
			return nil, policyErrorf("lineage: %w", err)
		}
	}
	if err := c.builders(p.Builders); err != nil {
		return nil, policyErrorf("%w", err)
	}
	if err := c.denials(p.Denials); err != nil {
		return nil, policyErrorf("%w", err)
	}
	for i, r := range p.Rules {
		if err := c.rule(i, r); err != nil {
			return nil, policyErrorf("rule %d: %w", i, err)
		}
	}
	if err := c.scopes.disjoint(); err != nil {
		return nil, policyErrorf("%w", err)
	}
	if err := c.distinct(); err != nil {
		return nil, policyErrorf("%w", err)
	}
	if err := p.roles(); err != nil {
		return nil, policyErrorf("%w", err)
	}
	return c, nil
}

// roles keeps those who judge apart from those who are judged: a publisher must
// neither vouch for his own artifact as a verifier nor lift its denial (RULES
// K23, K40).
func (p Policy) roles() error {
	publishers, verifiers := circle{}, circle{}
	for _, r := range p.Rules {
		publishers.add(r.signers()...)
		publishers.add(r.GrantSigners...)
		if r.Plaintext != nil {
			publishers.add(r.Plaintext.Signers...)
		}
	}
	for _, b := range p.Builders {
		publishers.add(b.Signers...)
	}
	for _, r := range p.Rules {
		if r.Summary == nil {
			continue
		}
		for _, s := range r.Summary.Signers {
			if publishers.has(s) {
				return fmt.Errorf("%s signs summaries and something else: a verifier must not judge what is his own", s)
			}
		}
		verifiers.add(r.Summary.Signers...)
	}
	for _, d := range p.Denials {
		for _, s := range d.Signers {
			if publishers.has(s) || verifiers.has(s) {
				return fmt.Errorf("%s signs denial lists and something else: nobody may lift his own denial", s)
			}
		}
	}
	return nil
}

func (c *compiled) rule(i int, r Rule) error {
	if len(r.Repositories) == 0 {
		return errors.New("no repositories: name at least one pattern")
	}
	for _, text := range r.Repositories {
		p, err := parsePattern(text)
		if err != nil {
			return err
		}
		if err := c.scopes.add(p, i); err != nil {
			return err
		}
	}
	switch {
	case !printable(r.Name):
		return fmt.Errorf("name is not 1 to %d printable bytes", maxName)
	case r.MinSequence > maxSequence:
		return fmt.Errorf("minSequence %d can never be met: sequences end at %d", r.MinSequence, uint64(maxSequence))
	case r.Encrypted && r.AllowUnindexed:
		return errors.New("encrypted and allowUnindexed contradict each other: an artifact without an index is not encrypted")
	case len(r.Require) == 0:
		return errors.New("no requirements: name at least one")
	}
	for j, q := range r.Require {
		if err := c.requirement(q); err != nil {
			return fmt.Errorf("requirement %d: %w", j, err)
		}
	}
	if err := c.signers(r.GrantSigners); err != nil {
		return fmt.Errorf("grant signers: %w", err)
	}
	if err := c.plaintext(r.Plaintext); err != nil {
		return fmt.Errorf("plaintext: %w", err)
	}
	if err := c.summary(r.Summary); err != nil {
		return fmt.Errorf("summary: %w", err)
	}
	if r.Plaintext == nil && slices.ContainsFunc(r.Require, func(q Requirement) bool { return q.Plaintext }) {
		return errors.New("a requirement about the plaintext can never be met: the rule does not say who binds it to the artifact")
	}
	return nil
}

func (c *compiled) requirement(q Requirement) error {
	switch q.PredicateType {
	case "", PredicateRelease, PredicateCosignSign, PredicateSLSA:
	default:
		return fmt.Errorf("predicate type %q satisfies nothing, since its meaning is unknown: want %s, %s or %s",
			clip(q.PredicateType), PredicateRelease, PredicateCosignSign, PredicateSLSA)
	}
	if q.PredicateType != PredicateSLSA && q.aboutBuilds() {
		return fmt.Errorf("builders, sources and all else about builds are for predicate type %s alone", PredicateSLSA)
	}
	if len(q.Signers) == 0 {
		return errors.New("no signers: name at least one principal")
	}
	if err := c.signers(q.Signers); err != nil {
		return fmt.Errorf("signers: %w", err)
	}
	return errors.Join(q.builds(c.followed != nil), q.reachable())
}

// reachable refuses numbers that no evidence could meet.
func (q Requirement) reachable() error {
	if q.Threshold < 0 || q.threshold() > len(q.Signers) {
		return fmt.Errorf("threshold %d of %d signers can never be met: want 1 to %d", q.Threshold, len(q.Signers), len(q.Signers))
	}
	if q.MinLogEntries < 0 || q.MinLogEntries > maxLogEntries {
		return fmt.Errorf("minLogEntries %d: want 0 to %d", q.MinLogEntries, maxLogEntries)
	}
	if q.MinTimestamps < 0 || q.MinTimestamps > maxTimestamps {
		return fmt.Errorf("minTimestamps %d: want 0 to %d", q.MinTimestamps, maxTimestamps)
	}
	if q.MinSCTs < 0 || q.MinSCTs > maxSCTs {
		return fmt.Errorf("minSCTs %d: want 0 to %d", q.MinSCTs, maxSCTs)
	}
	if q.MaxAge < 0 {
		return fmt.Errorf("maxAge %s: want a positive duration", q.MaxAge)
	}
	if q.MaxAge > 0 {
		identities := 0
		for _, s := range q.Signers {
			if s.Key == "" {
				identities++
			}
		}
		if identities < q.threshold() {
			return fmt.Errorf("maxAge can never be met: signatures by keys have no proven time, and %d of the signers are identities", identities)
		}
	}
	return nil
}

func (q Requirement) threshold() int { return max(q.Threshold, 1) }

// signers checks one list of principals and notes them.
func (c *compiled) signers(list []Principal) error {
	parties := make([]party, 0, len(list))
	for _, s := range list {
		if err := s.check(); err != nil {
			return fmt.Errorf("principal %q: %w", s.Name, err)
		}
		a, err := s.party()
		if err != nil {
			return fmt.Errorf("principal %q: %w", s.Name, err)
		}
		for _, b := range parties {
			if a.overlaps(b) {
				return fmt.Errorf("%s and %s could be one signer: each counts once", a, b)
			}
		}
		parties = append(parties, a)
	}
	for _, a := range parties {
		c.note(a)
	}
	return nil
}

// note adds a principal that is not known yet. One that has a name lends it to
// the same principal without.
func (c *compiled) note(a party) {
	for i, b := range c.parties {
		if a.equal(b) && (a.Name == b.Name || a.Name == "" || b.Name == "") {
			if b.Name == "" {
				c.parties[i] = a
			}
			return
		}
	}
	c.parties = append(c.parties, a)
}

// distinct wants one name for each principal and one principal for each name, so
// that nobody is counted twice under two names (RULES K20).
func (c *compiled) distinct() error {
	names := make(map[string]party, len(c.parties))
	seen := make(map[[3]string][]party, len(c.parties))
	for i, a := range c.parties {
		if a.Name == "" {
			a.Name = a.defaultName()
			c.parties[i] = a
		}
		if _, ok := names[a.Name]; ok {
			return fmt.Errorf("principal %q stands for two signers: give each its own name", a.Name)
		}
		names[a.Name] = a
		id := a.kin()
		for _, b := range seen[id] {
			if a.overlaps(b) {
				return fmt.Errorf("principals %q and %q could be one signer: keep one", b.Name, a.Name)
			}
		}
		seen[id] = append(seen[id], a)
	}
	return nil
}

// name returns what the policy calls a principal of its own.
func (c *compiled) name(p Principal) string {
	if a, err := p.party(); err == nil {
		for _, b := range c.parties {
			if a.equal(b) {
				return b.Name
			}
		}
	}
	return p.Name
}

// withoutRevision cuts the revision off a URI: what follows the first @ after the
// authority, which may have one of its own (git+ssh://git@host/…).
func withoutRevision(uri string) string {
	start := 0
	if i := strings.Index(uri, "://"); i >= 0 {
		start = i + len("://")
		slash := strings.IndexByte(uri[start:], '/')
		if slash < 0 {
			return uri
		}
		start += slash
	}
	if at := strings.IndexByte(uri[start:], '@'); at >= 0 {
		return uri[:start+at]
	}
	return uri
}
