// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

type grantDocument struct {
	Grant struct {
		SHA256 string `json:"sha256"`
	} `json:"grant"`
}

// NewGrant returns the statement that vouches for a grant document, named by the
// digest of its bytes (FORMAT.md §8.5).
func NewGrant(document digest.Digest) (Statement, error) {
	if err := checkDigest(document); err != nil {
		return Statement{}, formatError("grant: %w", err)
	}
	var doc grantDocument
	doc.Grant.SHA256 = document.Encoded()
	predicate, err := json.Marshal(doc)
	if err != nil {
		return Statement{}, err
	}
	return Statement{PredicateType: PredicateGrant, Predicate: predicate}, nil
}

// ParseGrant reads a grant statement and returns the digest of the grant
// document that it vouches for.
func ParseGrant(s Statement) (digest.Digest, error) {
	if s.PredicateType != PredicateGrant {
		return "", formatError("predicate type %q, want %q", clip(s.PredicateType), PredicateGrant)
	}
	var doc grantDocument
	if err := strictjson.Unmarshal(s.Predicate, &doc, maxStatement); err != nil {
		return "", formatError("grant: %w", err)
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, doc.Grant.SHA256)
	if err := checkDigest(d); err != nil {
		return "", formatError("grant: %w", err)
	}
	return d, nil
}

// GrantRule says whose word on grants counts for one artifact (FORMAT.md §8.5).
// The zero GrantRule hears nobody.
type GrantRule struct {
	manifest digest.Digest
	signers  []Principal
	now      time.Time
	denied   *denialsInForce
}

// GrantRule returns the rule for the grants of an artifact. Of the evidence it
// reads Reference, Manifest, Now and Denials. It returns the errors of
// Policy.Rule, and one that wraps ErrPolicy where a denial list is not in force.
func (p Policy) GrantRule(in Evidence) (GrantRule, error) {
	r, err := p.Rule(in.Reference)
	if err != nil {
		return GrantRule{}, err
	}
	e := &evaluation{policy: p, in: in, denied: newDenialsInForce()}
	if reason := e.heed(); reason != "" {
		return GrantRule{}, policyErrorf("%s", reason)
	}
	return GrantRule{manifest: in.Manifest, signers: r.GrantSigners, now: in.Now, denied: e.denied}, nil
}

// Verify returns nil where v vouches for the grant document with this digest:
// about the artifact alone and these bytes, by a grant signer whose signature
// counts at its time and whom no list denies.
func (g GrantRule) Verify(v Verified, document digest.Digest) error {
	if len(v.Subjects) != 1 || v.Subjects[0] != g.manifest {
		return formatError("grant statement is not about %s alone", g.manifest)
	}
	named, err := ParseGrant(v.Statement)
	if err != nil {
		return err
	}
	if named != document {
		return formatError("grant statement vouches for %s, not for the document %s", named, document)
	}
	signer, err := v.Signer.party()
	if err != nil {
		return err
	}
	p, ok := signer.among(g.signers)
	if !ok {
		return formatError("grant is signed by %s, who is none of the %d grant signers of the policy", v.Signer, len(g.signers))
	}
	if reason := p.within(v.Times, g.now); reason != "" {
		return fmt.Errorf("grant is signed by %s, who does not count: %s", p, reason)
	}
	if reason := g.denied.signer(signer, v.Times); reason != "" {
		return fmt.Errorf("grant is signed by %s: %s", p, reason)
	}
	return nil
}
