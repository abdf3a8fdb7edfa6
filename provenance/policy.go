// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"crypto"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Policy says what must be proven about an artifact before a byte of it is used
// (POLICY.md). It is a value: methods never change it. The zero Policy refuses
// everything, and so does one for which Validate returns an error.
type Policy struct {
	// Rules: exactly one applies to a repository.
	Rules []Rule
	// Expires is when the policy starts to refuse everything. Zero: never.
	Expires time.Time

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
	// Sources are the source repositories that SLSA provenance may name. Default: any.
	Sources []string
	// MaxAge bounds how long ago a trusted party saw the signature. Default: no
	// bound. Signatures by keys have no trusted time and cannot meet it.
	MaxAge time.Duration
	// MinLogEntries and MinTimestamps are how many verified transparency log
	// entries and signed timestamps each counted statement has. Default: 0.
	MinLogEntries, MinTimestamps int
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
	return r, nil
}

// Keys returns every key that the rule names, for KeyVerifier.
func (r Rule) Keys() []crypto.PublicKey {
	var keys []crypto.PublicKey
	var seen []string
	for _, s := range append(r.signers(), r.GrantSigners...) {
		if a, err := s.party(); err == nil && a.pub != nil && !slices.Contains(seen, a.keyID) {
			seen = append(seen, a.keyID)
			keys = append(keys, a.pub)
		}
	}
	return keys
}

// Issuers returns every issuer that the rule names. A caller who has no Verifier
// for identities cannot enforce such a rule, and should say so rather than
// report the artifact as unsigned.
func (r Rule) Issuers() []string {
	var issuers []string
	for _, s := range append(r.signers(), r.GrantSigners...) {
		if s.Issuer != "" && !slices.Contains(issuers, s.Issuer) {
			issuers = append(issuers, s.Issuer)
		}
	}
	return issuers
}

// VerifyGrant reports whether v vouches for the grant document of a manifest:
// signed by a grant signer, about this manifest and these bytes (FORMAT.md §8.5).
func (r Rule) VerifyGrant(v Verified, manifest, document digest.Digest) error {
	if len(v.Subjects) != 1 || v.Subjects[0] != manifest {
		return formatError("grant statement is not about %s alone", manifest)
	}
	named, err := ParseGrant(v.Statement)
	if err != nil {
		return err
	}
	if named != document {
		return formatError("grant statement vouches for %s, not for the document %s", named, document)
	}
	allowed := r.GrantSigners
	if len(allowed) == 0 {
		allowed = r.signers()
	}
	signer, err := v.Signer.party()
	if err != nil {
		return err
	}
	for _, p := range allowed {
		if a, err := p.party(); err == nil && p.check() == nil && a.matches(signer) {
			return nil
		}
	}
	return formatError("grant is signed by %s, who is none of the %d grant signers of the policy", v.Signer, len(allowed))
}

// signers lists the signers of all requirements, each once.
func (r Rule) signers() []Principal {
	var all []Principal
	for _, q := range r.Require {
		for _, s := range q.Signers {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}

// repository is the name to judge under: what the caller asked for, unless For
// says what that stands for.
func (p Policy) repository(reference string) string {
	if p.bound != nil {
		return *p.bound
	}
	return reference
}
