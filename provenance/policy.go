// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"crypto"
	"errors"
	"strings"
	"time"
)

// Policy says what must be proven about an artifact before a byte of it is used
// (POLICY.md). It is a value: methods never change it. The zero Policy refuses
// everything, and so does one for which Validate returns an error.
type Policy struct {
	// Rules: exactly one applies to a repository.
	Rules []Rule
	// Expires is when the policy starts to refuse everything. Zero: never.
	Expires time.Time
	// Builders is the table of builders. Default: no builder has a level.
	Builders []BuilderLevel
	// Denials are the denial lists to heed. Default: none.
	Denials []DenialSource
	// Lineage says where the materials of artifacts are looked at. Default: nowhere.
	Lineage Lineage

	bound  *string // set by For: the repository to judge as
	reason string  // set by UnsafeAcceptUnsigned
	unsafe bool
	defect error // left by a constructor that returns no error; Validate returns it
}

// Rule is what a policy demands of some repositories (POLICY.md §1.1).
type Rule struct {
	// Repositories are patterns: host/path, host/path/*, host/* or *.
	Repositories []string
	// Name is the name that a release statement must bear. Default: the
	// repository path without host.
	Name string
	// Require are the requirements, at least one. All must be met.
	Require []Requirement
	// GrantSigners may sign grants. Default: the signers of all requirements.
	GrantSigners []Principal
	// Encrypted requires the encrypted profile.
	Encrypted bool
	// MinSequence is the least sequence that the release statement may have.
	// Default: 0, any.
	MinSequence uint64
	// CompareLayerDigests requires whole-layer digests to be compared as well as
	// segment digests.
	CompareLayerDigests bool
	// AllowUnindexed admits artifacts of other tools, which have no index.
	AllowUnindexed bool
	// Plaintext says who binds the artifact to its plaintext. Default: nothing is
	// known of it.
	Plaintext *PlaintextRule
	// Summary says whose verification summary stands in for Require. Default:
	// nobody's.
	Summary *SummaryRule

	lists []Principal // in what Policy.Rule returns: the signers of denial lists
}

// Requirement is met by statements of one type that enough principals signed,
// each of which alone meets every clause (POLICY.md §1.2).
type Requirement struct {
	// PredicateType is one of PredicateRelease, PredicateCosignSign and
	// PredicateSLSA. Empty: a release or a cosign signature.
	PredicateType string
	// Signers are the principals whose statements count, at least one.
	Signers []Principal
	// Threshold is how many of them must have signed. Default: 1.
	Threshold int
	// Builders are the builder ids that SLSA provenance may name. Default: any.
	Builders []string
	// BuildTypes are the build types that it may name. Default: any.
	BuildTypes []string
	// MinLevel is the least level that Policy.Builders gives its builder and
	// signer. Default: 0, any.
	MinLevel int
	// Sources are the source repositories that it may name. Default: any.
	Sources []string
	// SourceRefs and SourceDigests are what the revision of such a source may be,
	// as in refs/tags/* and gitCommit:1f2e…. Default: any.
	SourceRefs, SourceDigests []string
	// Parameters is what its external parameters may be. Default: anything.
	Parameters *Schema
	// Materials is what its dependencies may be. Default: anything.
	Materials []MaterialRule
	// Plaintext takes provenance about the plaintext of the artifact, which
	// Rule.Plaintext binds to it, in place of provenance about the artifact.
	Plaintext bool
	// MaxAge bounds how long ago a trusted party saw the signature. Default: no
	// bound. Signatures by keys have no trusted time and cannot meet it.
	MaxAge time.Duration
	// MinLogEntries, MinTimestamps and MinSCTs are how many verified transparency
	// log entries, signed timestamps and certificate timestamps each counted
	// statement has. Default: 0.
	MinLogEntries, MinTimestamps, MinSCTs int
}

// RequireKey returns the policy "signed by this key": any repository, and each
// of the predicate types given; without any, a release or a cosign signature. A
// reference by tag needs a release statement in any case (POLICY.md §3).
func RequireKey(pub crypto.PublicKey, predicateTypes ...string) Policy {
	text, err := keyPEM(pub)
	if err != nil {
		return Policy{defect: err}
	}
	return require(Principal{Key: text}, predicateTypes)
}

// RequireIdentity is RequireKey for an identity, issuer and subject exact.
// Subjects of CI workflows also need their source named (see Principal): write a
// Rule for them.
func RequireIdentity(issuer, subject string, predicateTypes ...string) Policy {
	return require(Principal{Issuer: issuer, Subject: subject}, predicateTypes)
}

func require(signer Principal, predicateTypes []string) Policy {
	if len(predicateTypes) == 0 {
		predicateTypes = []string{""}
	}
	rule := Rule{Repositories: []string{"*"}}
	for _, t := range predicateTypes {
		rule.Require = append(rule.Require, Requirement{PredicateType: t, Signers: []Principal{signer}})
	}
	return Policy{Rules: []Rule{rule}}
}

// UnsafeAcceptUnsigned returns a policy that accepts anything from anybody. The
// reason must not be empty and stands in every report. The policy has no JSON
// form, so that it cannot reach a configuration file.
func UnsafeAcceptUnsigned(reason string) Policy {
	p := Policy{unsafe: true, reason: strings.TrimSpace(reason)}
	if p.reason == "" {
		p.defect = errors.New("UnsafeAcceptUnsigned needs a reason")
	}
	return p
}

// For returns the policy as it applies to the named repository, whatever the
// artifact is fetched from: a layout on disk, or a host that policy does not
// know. The caller says what the bytes are supposed to be; the disk never does.
func (p Policy) For(repository string) Policy {
	p.bound = &repository
	return p
}

// Rule returns the rule that applies to the reference (a repository, or "oci:"
// and a directory) with its defaults filled in: what a caller needs to gather
// evidence. It returns an error that wraps ErrPolicy where the policy is invalid, and
// a *PolicyError where no rule applies.
func (p Policy) Rule(reference string) (Rule, error) {
	c, err := p.compile()
	if err != nil {
		return Rule{}, err
	}
	if p.unsafe {
		return Rule{Repositories: []string{"*"}, AllowUnindexed: true}, nil
	}
	repository := p.repository(reference)
	i, ok := c.scopes.find(repository)
	if !ok {
		return Rule{}, &PolicyError{Report: p.Evaluate(Evidence{Reference: reference})}
	}
	r := p.Rules[i]
	if r.Name == "" {
		r.Name = defaultName(repository)
	}
	if len(r.GrantSigners) == 0 {
		r.GrantSigners = r.signers()
	}
	for _, s := range p.Denials {
		r.lists = append(r.lists, s.Signers...)
	}
	return r, nil
}

// repository is the name to judge under: what the caller asked for, unless For
// says what that stands for.
func (p Policy) repository(reference string) string {
	if p.bound != nil {
		return *p.bound
	}
	return reference
}
