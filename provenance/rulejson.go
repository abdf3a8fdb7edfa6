// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
)

type ruleDocument struct {
	Repositories        []string               `json:"repositories"`
	Name                *string                `json:"name,omitempty"`
	Encrypted           bool                   `json:"encrypted,omitempty"`
	MinSequence         uint64                 `json:"minSequence,omitempty"`
	CompareLayerDigests bool                   `json:"compareLayerDigests,omitempty"`
	AllowUnindexed      bool                   `json:"allowUnindexed,omitempty"`
	GrantSigners        *[]string              `json:"grantSigners,omitempty"`
	Plaintext           *plaintextRuleDocument `json:"plaintext,omitempty"`
	Summary             *summaryRuleDocument   `json:"summary,omitempty"`
	Require             []requirementDocument  `json:"require"`
}

type plaintextRuleDocument struct {
	Signers []string `json:"signers"`
	Compare bool     `json:"compare,omitempty"`
}

type summaryRuleDocument struct {
	Signers   []string        `json:"signers"`
	Threshold *int            `json:"threshold,omitempty"`
	Verifiers []string        `json:"verifiers"`
	Policies  []digest.Digest `json:"policies"`
	MaxAge    string          `json:"maxAge"`
	MinLevel  int             `json:"minLevel,omitempty"`
}

type requirementDocument struct {
	PredicateType *string                 `json:"predicateType,omitempty"`
	Signers       []string                `json:"signers"`
	Threshold     *int                    `json:"threshold,omitempty"`
	Builders      *[]string               `json:"builders,omitempty"`
	BuildTypes    *[]string               `json:"buildTypes,omitempty"`
	MinLevel      int                     `json:"minLevel,omitempty"`
	Sources       *[]string               `json:"sources,omitempty"`
	SourceRefs    *[]string               `json:"sourceRefs,omitempty"`
	SourceDigests *[]string               `json:"sourceDigests,omitempty"`
	Parameters    *schemaDocument         `json:"parameters,omitempty"`
	Materials     *[]materialRuleDocument `json:"materials,omitempty"`
	Plaintext     bool                    `json:"plaintext,omitempty"`
	MaxAge        *string                 `json:"maxAge,omitempty"`
	MinLogEntries int                     `json:"minLogEntries,omitempty"`
	MinTimestamps int                     `json:"minTimestamps,omitempty"`
	MinSCTs       int                     `json:"minSCTs,omitempty"`
}

type materialRuleDocument struct {
	Role     *string                  `json:"role,omitempty"`
	Required *[]materialMatchDocument `json:"required,omitempty"`
	Allowed  *[]materialMatchDocument `json:"allowed,omitempty"`
	Denied   *[]materialMatchDocument `json:"denied,omitempty"`
	Verified bool                     `json:"verified,omitempty"`
}

type materialMatchDocument struct {
	URI    string        `json:"uri,omitempty"`
	Digest digest.Digest `json:"digest,omitempty"`
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
	if d.Plaintext != nil {
		r.Plaintext = &PlaintextRule{Compare: d.Plaintext.Compare}
		if r.Plaintext.Signers, err = lookUp(principals, d.Plaintext.Signers); err != nil {
			return Rule{}, fmt.Errorf("plaintext: signers: %w", err)
		}
	}
	if d.Summary != nil {
		if r.Summary, err = d.Summary.rule(principals); err != nil {
			return Rule{}, fmt.Errorf("summary: %w", err)
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

func (d summaryRuleDocument) rule(principals map[string]Principal) (*SummaryRule, error) {
	r := &SummaryRule{Verifiers: d.Verifiers, Policies: d.Policies, MinLevel: d.MinLevel}
	var err error
	if r.Signers, err = lookUp(principals, d.Signers); err != nil {
		return nil, fmt.Errorf("signers: %w", err)
	}
	if err := atLeastOne("threshold", d.Threshold, &r.Threshold); err != nil {
		return nil, err
	}
	r.MaxAge, err = parseAge(&d.MaxAge)
	return r, err
}

func (d requirementDocument) requirement(principals map[string]Principal) (Requirement, error) {
	q := Requirement{MinLevel: d.MinLevel, Plaintext: d.Plaintext, MinLogEntries: d.MinLogEntries, MinTimestamps: d.MinTimestamps, MinSCTs: d.MinSCTs}
	var err error
	if q.Signers, err = lookUp(principals, d.Signers); err != nil {
		return Requirement{}, fmt.Errorf("signers: %w", err)
	}
	if d.PredicateType != nil {
		if q.PredicateType = *d.PredicateType; q.PredicateType == "" {
			return Requirement{}, errors.New("predicateType is empty: leave it out for a release or a cosign signature")
		}
	}
	if err = atLeastOne("threshold", d.Threshold, &q.Threshold); err != nil {
		return Requirement{}, err
	}
	if q.MaxAge, err = parseAge(d.MaxAge); err != nil {
		return Requirement{}, err
	}
	for _, list := range []struct {
		name string
		from *[]string
		to   *[]string
	}{
		{"builders", d.Builders, &q.Builders}, {"buildTypes", d.BuildTypes, &q.BuildTypes}, {"sources", d.Sources, &q.Sources},
		{"sourceRefs", d.SourceRefs, &q.SourceRefs}, {"sourceDigests", d.SourceDigests, &q.SourceDigests},
	} {
		if list.from == nil {
			continue
		}
		if len(*list.from) == 0 {
			return Requirement{}, fmt.Errorf("%s is empty, which can never be met: leave it out to allow any", list.name)
		}
		*list.to = *list.from
	}
	if d.Parameters != nil {
		s := d.Parameters.schema()
		q.Parameters = &s
	}
	if d.Materials != nil {
		if len(*d.Materials) == 0 {
			return Requirement{}, errors.New("materials is empty: leave it out to allow any")
		}
		for i, m := range *d.Materials {
			rule, err := m.rule()
			if err != nil {
				return Requirement{}, fmt.Errorf("materials %d: %w", i, err)
			}
			q.Materials = append(q.Materials, rule)
		}
	}
	return q, nil
}

func (d materialRuleDocument) rule() (MaterialRule, error) {
	m := MaterialRule{Verified: d.Verified}
	if d.Role != nil {
		if m.Role = *d.Role; m.Role == "" {
			return m, errors.New("role is empty: leave it out for every dependency")
		}
	}
	for _, list := range []struct {
		name string
		from *[]materialMatchDocument
		to   *[]MaterialMatch
	}{{"required", d.Required, &m.Required}, {"allowed", d.Allowed, &m.Allowed}, {"denied", d.Denied, &m.Denied}} {
		if list.from == nil {
			continue
		}
		if len(*list.from) == 0 {
			return m, fmt.Errorf("%s is empty: leave it out", list.name)
		}
		for _, w := range *list.from {
			*list.to = append(*list.to, MaterialMatch(w))
		}
	}
	return m, nil
}

func (r Rule) document(c *compiled) ruleDocument {
	d := ruleDocument{Repositories: r.Repositories, Name: optional(r.Name), Encrypted: r.Encrypted, MinSequence: r.MinSequence,
		CompareLayerDigests: r.CompareLayerDigests, AllowUnindexed: r.AllowUnindexed, GrantSigners: optionalList(c.names(r.GrantSigners))}
	if p := r.Plaintext; p != nil {
		d.Plaintext = &plaintextRuleDocument{c.names(p.Signers), p.Compare}
	}
	if s := r.Summary; s != nil {
		d.Summary = &summaryRuleDocument{Signers: c.names(s.Signers), Verifiers: s.Verifiers, Policies: s.Policies, MaxAge: s.MaxAge.String(), MinLevel: s.MinLevel}
		if s.Threshold > 1 {
			d.Summary.Threshold = &s.Threshold
		}
	}
	for _, q := range r.Require {
		d.Require = append(d.Require, q.document(c))
	}
	return d
}

func (q Requirement) document(c *compiled) requirementDocument {
	d := requirementDocument{PredicateType: optional(q.PredicateType), Signers: c.names(q.Signers), MinLevel: q.MinLevel,
		Builders: optionalList(q.Builders), BuildTypes: optionalList(q.BuildTypes), Sources: optionalList(q.Sources),
		SourceRefs: optionalList(q.SourceRefs), SourceDigests: optionalList(q.SourceDigests), Plaintext: q.Plaintext, MaxAge: optionalAge(q.MaxAge),
		MinLogEntries: q.MinLogEntries, MinTimestamps: q.MinTimestamps, MinSCTs: q.MinSCTs}
	if q.Threshold > 1 {
		d.Threshold = &q.Threshold
	}
	if q.Parameters != nil {
		s := q.Parameters.document()
		d.Parameters = &s
	}
	for _, m := range q.Materials {
		if d.Materials == nil {
			d.Materials = &[]materialRuleDocument{}
		}
		*d.Materials = append(*d.Materials, materialRuleDocument{Role: optional(m.Role), Required: optionalMatches(m.Required),
			Allowed: optionalMatches(m.Allowed), Denied: optionalMatches(m.Denied), Verified: m.Verified})
	}
	return d
}

func optionalMatches(list []MaterialMatch) *[]materialMatchDocument {
	if len(list) == 0 {
		return nil
	}
	out := make([]materialMatchDocument, 0, len(list))
	for _, w := range list {
		out = append(out, materialMatchDocument(w))
	}
	return &out
}
