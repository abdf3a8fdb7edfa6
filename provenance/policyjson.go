// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

const policyVersion = 1

// The JSON form of a policy (POLICY.md §1). Pointers tell a member that is
// missing from one that is empty: an empty "builders" means nobody, where a
// missing one means anybody.
type policyDocument struct {
	FormatVersion int                          `json:"formatVersion"`
	Expires       *string                      `json:"expires,omitempty"`
	Principals    map[string]principalDocument `json:"principals"`
	Rules         []ruleDocument               `json:"rules"`
}

type principalDocument struct {
	Key              string `json:"key,omitempty"`
	Issuer           string `json:"issuer,omitempty"`
	Subject          string `json:"subject,omitempty"`
	SourceRepository string `json:"sourceRepository,omitempty"`
	SourceOwnerID    string `json:"sourceOwnerId,omitempty"`
	SourceRef        string `json:"sourceRef,omitempty"`
	Trigger          string `json:"trigger,omitempty"`
}

type ruleDocument struct {
	Repositories        []string              `json:"repositories"`
	Name                *string               `json:"name,omitempty"`
	Encrypted           bool                  `json:"encrypted,omitempty"`
	MinSequence         uint64                `json:"minSequence,omitempty"`
	CompareLayerDigests bool                  `json:"compareLayerDigests,omitempty"`
	AllowUnindexed      bool                  `json:"allowUnindexed,omitempty"`
	GrantSigners        *[]string             `json:"grantSigners,omitempty"`
	Require             []requirementDocument `json:"require"`
}

type requirementDocument struct {
	PredicateType *string   `json:"predicateType,omitempty"`
	Signers       []string  `json:"signers"`
	Threshold     *int      `json:"threshold,omitempty"`
	Builders      *[]string `json:"builders,omitempty"`
	Sources       *[]string `json:"sources,omitempty"`
	MaxAge        *string   `json:"maxAge,omitempty"`
	MinLogEntries int       `json:"minLogEntries,omitempty"`
	MinTimestamps int       `json:"minTimestamps,omitempty"`
}

// ParsePolicy reads a policy document. Every error wraps ErrPolicy, and a policy
// with an error is never used in part.
func ParsePolicy(b []byte) (Policy, error) {
	var doc policyDocument
	if err := strictjson.Unmarshal(b, &doc, maxPolicy); err != nil {
		return Policy{}, policyErrorf("%w", err)
	}
	if doc.FormatVersion != policyVersion {
		return Policy{}, policyErrorf("formatVersion %d, want %d", doc.FormatVersion, policyVersion)
	}
	var p Policy
	if doc.Expires != nil {
		t, err := parseTime(*doc.Expires)
		if err != nil {
			return Policy{}, policyErrorf("expires: %w", err)
		}
		p.Expires = t
	}
	principals, err := doc.principals()
	if err != nil {
		return Policy{}, policyErrorf("%w", err)
	}
	for i, r := range doc.Rules {
		rule, err := r.rule(principals)
		if err != nil {
			return Policy{}, policyErrorf("rule %d: %w", i, err)
		}
		p.Rules = append(p.Rules, rule)
	}
	if err := p.Validate(); err != nil {
		return Policy{}, err
	}
	return p, nil
}

// principals checks all of them, those that no rule uses as well.
func (d policyDocument) principals() (map[string]Principal, error) {
	out := make(map[string]Principal, len(d.Principals))
	c := &compiled{}
	for name, q := range d.Principals {
		if name == "" || !printable(name) {
			return nil, fmt.Errorf("principal %q: want a name of 1 to %d printable bytes", clip(name), maxName)
		}
		p := Principal{Name: name, Key: q.Key, Issuer: q.Issuer, Subject: q.Subject,
			SourceRepository: q.SourceRepository, SourceOwnerID: q.SourceOwnerID, SourceRef: q.SourceRef, Trigger: q.Trigger}
		out[name] = p
		if err := c.signers([]Principal{p}); err != nil {
			return nil, err
		}
	}
	return out, c.distinct()
}

func (d ruleDocument) rule(principals map[string]Principal) (Rule, error) {
	r := Rule{Repositories: d.Repositories, Encrypted: d.Encrypted, MinSequence: d.MinSequence,
		CompareLayerDigests: d.CompareLayerDigests, AllowUnindexed: d.AllowUnindexed}
	if d.Name != nil {
		if r.Name = *d.Name; r.Name == "" {
			return Rule{}, errors.New("name is empty: leave it out for the repository path")
		}
	}
	var err error
	if d.GrantSigners != nil {
		if len(*d.GrantSigners) == 0 {
			return Rule{}, errors.New("grantSigners is empty: leave it out for the signers of the requirements")
		}
		if r.GrantSigners, err = lookUp(principals, *d.GrantSigners); err != nil {
			return Rule{}, fmt.Errorf("grantSigners: %w", err)
		}
	}
	for i, q := range d.Require {
		requirement, err := q.requirement(principals)
		if err != nil {
			return Rule{}, fmt.Errorf("requirement %d: %w", i, err)
		}
		r.Require = append(r.Require, requirement)
	}
	return r, nil
}

func (d requirementDocument) requirement(principals map[string]Principal) (Requirement, error) {
	q := Requirement{MinLogEntries: d.MinLogEntries, MinTimestamps: d.MinTimestamps}
	var err error
	if q.Signers, err = lookUp(principals, d.Signers); err != nil {
		return Requirement{}, fmt.Errorf("signers: %w", err)
	}
	if d.PredicateType != nil {
		if q.PredicateType = *d.PredicateType; q.PredicateType == "" {
			return Requirement{}, errors.New("predicateType is empty: leave it out for a release or a cosign signature")
		}
	}
	if d.Threshold != nil {
		if q.Threshold = *d.Threshold; q.Threshold < 1 {
			return Requirement{}, fmt.Errorf("threshold %d: want at least 1", q.Threshold)
		}
	}
	if d.MaxAge != nil {
		if q.MaxAge, err = time.ParseDuration(*d.MaxAge); err != nil || q.MaxAge <= 0 {
			return Requirement{}, fmt.Errorf("maxAge %q: want a positive Go duration, as in 720h", clip(*d.MaxAge))
		}
	}
	for _, list := range []struct {
		name string
		from *[]string
		to   *[]string
	}{{"builders", d.Builders, &q.Builders}, {"sources", d.Sources, &q.Sources}} {
		if list.from == nil {
			continue
		}
		if len(*list.from) == 0 {
			return Requirement{}, fmt.Errorf("%s is empty, which can never be met: leave it out to allow any", list.name)
		}
		*list.to = *list.from
	}
	return q, nil
}

func lookUp(principals map[string]Principal, names []string) ([]Principal, error) {
	var out []Principal
	for _, name := range names {
		p, ok := principals[name]
		if !ok {
			return nil, fmt.Errorf("%q is no principal of the policy", clip(name))
		}
		out = append(out, p)
	}
	return out, nil
}

// UnmarshalJSON is ParsePolicy, so that no decoder reads a policy more leniently.
func (p *Policy) UnmarshalJSON(b []byte) error {
	q, err := ParsePolicy(b)
	if err != nil {
		return err
	}
	*p = q
	return nil
}

// MarshalJSON returns the policy as the document that ParsePolicy reads. It
// fails for an invalid policy, for UnsafeAcceptUnsigned, and after For: what a
// reference stands for belongs to the call, not to the document.
func (p Policy) MarshalJSON() ([]byte, error) {
	c, err := p.compile()
	switch {
	case err != nil:
		return nil, err
	case p.unsafe:
		return nil, policyErrorf("UnsafeAcceptUnsigned has no JSON form")
	case p.bound != nil:
		return nil, policyErrorf("a policy after For has no JSON form: marshal it before")
	}
	return p.document(c)
}

func (p Policy) document(c *compiled) ([]byte, error) {
	doc := policyDocument{FormatVersion: policyVersion, Principals: make(map[string]principalDocument, len(c.parties))}
	if !p.Expires.IsZero() {
		s := p.Expires.UTC().Format(time.RFC3339Nano)
		doc.Expires = &s
	}
	for _, a := range c.parties {
		key := ""
		if a.pub != nil {
			var err error
			if key, err = keyPEM(a.pub); err != nil {
				return nil, err
			}
		}
		doc.Principals[a.Name] = principalDocument{Key: key, Issuer: a.Issuer, Subject: a.Subject,
			SourceRepository: a.SourceRepository, SourceOwnerID: a.SourceOwnerID, SourceRef: a.SourceRef, Trigger: a.Trigger}
	}
	for _, r := range p.Rules {
		rd := ruleDocument{Repositories: r.Repositories, Name: optional(r.Name), Encrypted: r.Encrypted, MinSequence: r.MinSequence,
			CompareLayerDigests: r.CompareLayerDigests, AllowUnindexed: r.AllowUnindexed, GrantSigners: optionalList(c.names(r.GrantSigners))}
		for _, q := range r.Require {
			qd := requirementDocument{PredicateType: optional(q.PredicateType), Signers: c.names(q.Signers),
				Builders: optionalList(q.Builders), Sources: optionalList(q.Sources), MinLogEntries: q.MinLogEntries, MinTimestamps: q.MinTimestamps}
			if q.Threshold > 1 {
				qd.Threshold = &q.Threshold
			}
			if q.MaxAge > 0 {
				qd.MaxAge = optional(q.MaxAge.String())
			}
			rd.Require = append(rd.Require, qd)
		}
		doc.Rules = append(doc.Rules, rd)
	}
	return json.Marshal(doc)
}

// digest names the policy in reports: the digest of its canonical document, so
// that it does not depend on how the file was laid out. What For says is left out.
func (p Policy) digest(c *compiled) digest.Digest {
	if c == nil || p.unsafe {
		return ""
	}
	b, err := p.document(c)
	if err != nil {
		return ""
	}
	return digest.FromBytes(b)
}

func (c *compiled) names(list []Principal) []string {
	var names []string
	for _, p := range list {
		names = append(names, c.name(p))
	}
	return names
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalList(list []string) *[]string {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	return &list
}
