// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Report says what a policy decided about an artifact, and why (POLICY.md §5).
// Its JSON form is stable.
type Report struct {
	// Allowed is the decision.
	Allowed bool `json:"allowed"`
	// Time is the clock that it was judged by.
	Time time.Time `json:"time"`
	// Reference and Tag are what the caller asked for.
	Reference string `json:"reference"`
	Tag       string `json:"tag,omitempty"`
	// Manifest is the one digest that everything was judged against.
	Manifest digest.Digest `json:"manifest"`
	// Repository is the name under which the rule was found: Reference, or what
	// Policy.For said it stands for.
	Repository string `json:"repository"`
	// Rule is the repositories of the rule that applied.
	Rule []string `json:"rule,omitempty"`
	// Policy is the digest of the policy's JSON form.
	Policy digest.Digest `json:"policy,omitempty"`
	// Clauses are listed in the order in which they were judged. Of a requirement
	// that is not met, the last one says why.
	Clauses []Clause `json:"clauses"`
	// Statements are all that were looked at, the proven ones first.
	Statements []StatementReport `json:"statements,omitempty"`
	// Rollback is "protected" or "unprotected".
	Rollback string `json:"rollback"`
	// LayerDigests is "compared" or "not compared".
	LayerDigests string `json:"layerDigests"`
	// Level is the SLSA build level that the policy's table of builders gives to
	// what was built, 0 where it gives none.
	Level int `json:"level,omitempty"`
	// Summary says that a verification summary stood in for the requirements.
	Summary bool `json:"summary,omitempty"`
	// Plaintexts are the plaintext roots that the artifact is proven to hold: more
	// than one only where its signers contradict each other.
	Plaintexts []digest.Digest `json:"plaintexts,omitempty"`
	// Plaintext is "compared" or "asserted by signer". Empty: no rule asks for it.
	Plaintext string `json:"plaintext,omitempty"`
	// Unsafe is the reason given to UnsafeAcceptUnsigned.
	Unsafe string `json:"unsafe,omitempty"`
	// Notes say what was noticed while content moved, after the decision: hosts
	// that ignore ranges, sources that served wrong bytes. Set by whoever moved it.
	Notes []string `json:"notes,omitempty"`
}

// Clause is one condition and how it was judged.
type Clause struct {
	// Requirement names the requirement that the clause belongs to, as in
	// require[0]; "tag" is that of POLICY.md §3. Empty for clauses about the
	// artifact and the policy.
	Requirement string `json:"requirement,omitempty"`
	// Name says which clause.
	Name string `json:"name"`
	// Held says whether the clause let the artifact pass.
	Held bool `json:"held"`
	// Found is what there was.
	Found string `json:"found"`
	// Needs is what would satisfy the clause, where it did not hold.
	Needs string `json:"needs,omitempty"`
}

// StatementReport is a statement that was looked at.
type StatementReport struct {
	// PredicateType and Signer are of a proven statement.
	PredicateType string `json:"predicateType,omitempty"`
	Signer        string `json:"signer,omitempty"`
	// Attestation is the digest of a proven bundle, where the caller gave it.
	Attestation digest.Digest `json:"attestation,omitempty"`
	// BuildType and Builder are what provenance says of the build.
	BuildType string `json:"buildType,omitempty"`
	Builder   string `json:"builder,omitempty"`
	// Source is where a bundle came from that was not proven.
	Source string `json:"source,omitempty"`
	// Counted names the requirements that the statement counted for.
	Counted []string `json:"counted,omitempty"`
	// Reasons say why it did not count, for the others.
	Reasons []string `json:"reasons,omitempty"`
}

func newReport(in Evidence) *Report {
	return &Report{Time: in.Now, Reference: in.Reference, Tag: in.Tag, Manifest: in.Manifest,
		Rollback: "unprotected", LayerDigests: layerDigests(in.LayerDigestsCompared)}
}

func (r *Report) add(c ...Clause) { r.Clauses = append(r.Clauses, c...) }

func allHeld(clauses []Clause) bool {
	return !slices.ContainsFunc(clauses, func(c Clause) bool { return !c.Held })
}

// inputs are the digests of the attestations that counted.
func (r *Report) inputs() []digest.Digest {
	var out []digest.Digest
	for _, s := range r.Statements {
		if len(s.Counted) > 0 && s.Attestation != "" {
			out = append(out, s.Attestation)
		}
	}
	return out
}

// close decides: every clause held.
func (r *Report) close(e *evaluation) {
	r.Allowed = len(r.Clauses) > 0 && len(r.Refused()) == 0
	expiring, lasting := false, false
	for _, c := range e.candidates {
		s := StatementReport{PredicateType: c.Statement.PredicateType, Signer: e.signerName(c), Attestation: c.Attestation,
			BuildType: c.slsa.BuildDefinition.BuildType, Builder: c.slsa.RunDetails.Builder.ID, Counted: c.counted, Reasons: c.reasons}
		if len(c.counted)+len(c.reasons) == 0 {
			s.Reasons = []string{"no requirement is for this predicate type"}
		}
		r.Statements = append(r.Statements, s)
		if c.Statement.PredicateType == PredicateRelease && len(c.counted) > 0 {
			expiring = expiring || !c.release.Expires.IsZero()
			lasting = lasting || c.release.Expires.IsZero()
		}
	}
	for _, j := range e.in.Rejected {
		r.Statements = append(r.Statements, StatementReport{Source: j.Source, Reasons: []string{j.Reason}})
	}
	if len(e.levels) > 0 {
		r.Level = slices.Min(e.levels)
	}
	for _, p := range e.plaintexts {
		if !slices.Contains(r.Plaintexts, p.Root) {
			r.Plaintexts = append(r.Plaintexts, p.Root)
		}
	}
	if e.rule != nil && e.rule.Plaintext != nil {
		if r.Plaintext = "asserted by signer"; e.in.PlaintextCompared {
			r.Plaintext = "compared"
		}
	}
	// Whoever runs the registry shows the release that suits him, so one that
	// lasts undoes the expiry of the others.
	if e.rule != nil && (e.rule.MinSequence > 0 || expiring && !lasting) {
		r.Rollback = "protected"
	}
}

func (e *evaluation) signerName(c *candidate) string {
	if e.compiled != nil && c.signerErr == nil {
		for _, a := range e.compiled.parties {
			if a.matches(c.signer) {
				return a.Name
			}
		}
	}
	return c.Signer.String()
}

// Refused returns the clauses that did not hold.
func (r *Report) Refused() []Clause {
	var out []Clause
	for _, c := range r.Clauses {
		if !c.Held {
			out = append(out, c)
		}
	}
	return out
}

// Err returns a *PolicyError that carries the report where it refuses, else nil.
func (r *Report) Err() error {
	if r.Allowed {
		return nil
	}
	return &PolicyError{Report: r}
}
