// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
	"time"

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
	Builders      *[]builderDocument           `json:"builders,omitempty"`
	Denials       *[]denialSourceDocument      `json:"denials,omitempty"`
	Lineage       *lineageDocument             `json:"lineage,omitempty"`
	Rules         []ruleDocument               `json:"rules"`
}

type principalDocument struct {
	Key               string  `json:"key,omitempty"`
	Issuer            string  `json:"issuer,omitempty"`
	Subject           string  `json:"subject,omitempty"`
	SourceRepository  string  `json:"sourceRepository,omitempty"`
	SourceOwnerID     string  `json:"sourceOwnerId,omitempty"`
	SourceRef         string  `json:"sourceRef,omitempty"`
	Trigger           string  `json:"trigger,omitempty"`
	RunnerEnvironment string  `json:"runnerEnvironment,omitempty"`
	NotBefore         *string `json:"notBefore,omitempty"`
	NotAfter          *string `json:"notAfter,omitempty"`
}

type builderDocument struct {
	ID      string   `json:"id"`
	Signers []string `json:"signers"`
	Level   int      `json:"level"`
}

type denialSourceDocument struct {
	Name        string   `json:"name"`
	Signers     []string `json:"signers"`
	Source      *string  `json:"source,omitempty"`
	MinSequence uint64   `json:"minSequence,omitempty"`
	MaxAge      *string  `json:"maxAge,omitempty"`
}

type lineageDocument struct {
	Repositories []string `json:"repositories"`
	MaxDepth     *int     `json:"maxDepth,omitempty"`
	MaxArtifacts *int     `json:"maxArtifacts,omitempty"`
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
	var err error
	if p.Expires, err = optionalMoment(doc.Expires); err != nil {
		return Policy{}, policyErrorf("expires: %w", err)
	}
	principals, err := doc.principals()
	if err != nil {
		return Policy{}, policyErrorf("%w", err)
	}
	if err := doc.tables(principals, &p); err != nil {
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
			SourceRepository: q.SourceRepository, SourceOwnerID: q.SourceOwnerID, SourceRef: q.SourceRef, Trigger: q.Trigger, RunnerEnvironment: q.RunnerEnvironment}
		var err error
		if p.NotBefore, err = optionalMoment(q.NotBefore); err != nil {
			return nil, fmt.Errorf("principal %q: notBefore: %w", name, err)
		}
		if p.NotAfter, err = optionalMoment(q.NotAfter); err != nil {
			return nil, fmt.Errorf("principal %q: notAfter: %w", name, err)
		}
		out[name] = p
		if err := c.signers([]Principal{p}); err != nil {
			return nil, err
		}
	}
	return out, c.distinct()
}

// tables reads what applies to all rules.
func (d policyDocument) tables(principals map[string]Principal, p *Policy) error {
	if d.Builders != nil {
		if len(*d.Builders) == 0 {
			return errors.New("builders is empty: leave it out")
		}
		for i, b := range *d.Builders {
			signers, err := lookUp(principals, b.Signers)
			if err != nil {
				return fmt.Errorf("builder %d: signers: %w", i, err)
			}
			p.Builders = append(p.Builders, BuilderLevel{ID: b.ID, Signers: signers, Level: b.Level})
		}
	}
	if d.Denials != nil {
		if len(*d.Denials) == 0 {
			return errors.New("denials is empty: leave it out to heed no list")
		}
		for i, s := range *d.Denials {
			source, err := s.source(principals)
			if err != nil {
				return fmt.Errorf("denial list %d: %w", i, err)
			}
			p.Denials = append(p.Denials, source)
		}
	}
	if d.Lineage != nil {
		if len(d.Lineage.Repositories) == 0 {
			return errors.New("lineage: no repositories: name at least one pattern")
		}
		p.Lineage.Repositories = d.Lineage.Repositories
		return errors.Join(atLeastOne("lineage: maxDepth", d.Lineage.MaxDepth, &p.Lineage.MaxDepth),
			atLeastOne("lineage: maxArtifacts", d.Lineage.MaxArtifacts, &p.Lineage.MaxArtifacts))
	}
	return nil
}

func (d denialSourceDocument) source(principals map[string]Principal) (DenialSource, error) {
	s := DenialSource{Name: d.Name, MinSequence: d.MinSequence}
	var err error
	if s.Signers, err = lookUp(principals, d.Signers); err != nil {
		return s, fmt.Errorf("signers: %w", err)
	}
	if d.Source != nil {
		if s.Source = *d.Source; s.Source == "" {
			return s, errors.New("source is empty: leave it out where the caller gives the list")
		}
	}
	s.MaxAge, err = parseAge(d.MaxAge)
	return s, err
}

// atLeastOne reads a number whose absence is the zero of its Go form.
func atLeastOne(name string, from, to *int) error {
	if from == nil {
		return nil
	}
	if *to = *from; *to < 1 {
		return fmt.Errorf("%s %d: want at least 1", name, *to)
	}
	return nil
}

func parseAge(s *string) (time.Duration, error) {
	if s == nil {
		return 0, nil
	}
	d, err := time.ParseDuration(*s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("maxAge %q: want a positive Go duration, as in 720h", clip(*s))
	}
	return d, nil
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
