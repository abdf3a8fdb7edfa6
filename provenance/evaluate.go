// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Evidence is everything a policy judges about one artifact. Nothing in it is
// looked up or measured here: the caller gathered it, and answers for Manifest,
// Profile and IndexDigest being those of the bytes it will use.
type Evidence struct {
	// Reference is the repository that the caller asked for, as host/path, or
	// "oci:" and a directory; never the mirror that served it.
	Reference string
	// Tag is the tag asked for. Empty where the reference has a digest.
	Tag string
	// Manifest is the digest of the manifest that the reference resolved to.
	Manifest digest.Digest
	// Profile is ProfilePlain or ProfileEncrypted. Empty where there is no index.
	Profile string
	// IndexDigest is the digest of the index layer. Empty where there is none.
	IndexDigest digest.Digest
	// Statements are those that a Verifier proved.
	Statements []Verified
	// Rejected are the bundles that none proved. They only make the report say more.
	Rejected []Rejection
	// Now is the caller's clock.
	Now time.Time
	// LayerDigestsCompared says that the caller compares whole-layer digests for
	// everything it releases.
	LayerDigestsCompared bool
}

// Rejection is a bundle that no Verifier proved.
type Rejection struct {
	// Source says where the bundle came from, as a digest or a file.
	Source string `json:"source"`
	// Reason says why it was not proven.
	Reason string `json:"reason"`
}

// Evaluate judges the evidence and reports every clause. It does no I/O, reads
// no clock, and gives equal reports for equal evidence. More evidence never
// turns a permission into a refusal, so whoever can add to a registry's listing
// gains nothing by it (RULES K28).
func (p Policy) Evaluate(in Evidence) *Report {
	return p.evaluate(in, "")
}

// evaluate leaves out the clause named, so that tests can show that each one
// refuses something by itself.
func (p Policy) evaluate(in Evidence, without string) *Report {
	e := &evaluation{policy: p, in: in, repository: p.repository(in.Reference), report: newReport(in)}
	e.compiled, e.defect = p.compile()
	e.report.Repository = e.repository
	e.report.Policy = p.digest(e.compiled)
	if p.unsafe && e.defect == nil {
		e.report.Unsafe = p.reason
		e.report.add(Clause{Name: "unsafe", Held: true, Found: "everything is accepted: " + p.reason})
	} else {
		e.judge(without)
	}
	e.report.close(e)
	return e.report
}

// evaluation is what clauses look at.
type evaluation struct {
	policy     Policy
	compiled   *compiled
	defect     error
	in         Evidence
	repository string
	rule       *Rule
	name       string // that a release must bear
	candidates []*candidate
	report     *Report
}

// candidate is a statement on its way through the requirements.
type candidate struct {
	Verified
	signer    party
	signerErr error
	release   Release    // where the type says so; zero where formErr is set
	slsa      Provenance // likewise
	formErr   error
	counted   []string
	reasons   []string
}

func (e *evaluation) judge(without string) {
	for _, c := range artifactClauses {
		if c.name == without || c.applies != nil && !c.applies(e) {
			continue
		}
		found, held := c.judge(e)
		out := Clause{Name: c.name, Held: held, Found: found}
		if !held {
			out.Needs = c.needs
		}
		e.report.add(out)
	}
	e.prepare()
	if e.rule == nil {
		return
	}
	for i, q := range e.rule.Require {
		e.require(requirementName(i), q, without)
	}
	if label := e.impliedRelease(); label != "" && label != without {
		e.require(label, Requirement{PredicateType: PredicateRelease, Signers: e.rule.signers()}, without)
	}
}

// impliedRelease names the requirement for a release statement that applies
// whatever the rule says, or nothing. A tag is whatever the registry says
// (POLICY.md §3), and a sequence stands nowhere else. One statement must meet
// both, or an old release could lend its tag to a new one.
func (e *evaluation) impliedRelease() string {
	switch {
	case e.in.Tag != "":
		return clauseTag
	case e.rule.MinSequence > 0:
		return clauseMinSequence
	}
	return ""
}

// prepare parses every statement once.
func (e *evaluation) prepare() {
	for _, v := range e.in.Statements {
		c := &candidate{Verified: v}
		c.signer, c.signerErr = v.Signer.party()
		switch v.Statement.PredicateType {
		case PredicateRelease:
			c.release, c.formErr = ParseRelease(v.Statement)
		case PredicateSLSA:
			c.slsa, c.formErr = ParseProvenance(v.Statement)
		}
		e.candidates = append(e.candidates, c)
	}
}

// require judges one requirement: statements pass clause after clause, each by
// itself, and who signed what remains is counted.
func (e *evaluation) require(label string, q Requirement, without string) {
	remaining := slices.Clone(e.candidates)
	j := &judgement{evaluation: e, requirement: q}
	for _, c := range statementClauses {
		if c.name == without || c.applies != nil && !c.applies(j) {
			continue
		}
		var kept []*candidate
		var lost []string
		for _, s := range remaining {
			reason := c.judge(j, s)
			if reason == "" {
				kept = append(kept, s)
				continue
			}
			if c.name != clausePredicateType {
				s.reasons = append(s.reasons, label+": "+c.name+": "+reason)
			}
			if !slices.Contains(lost, reason) {
				lost = append(lost, reason)
			}
		}
		out := Clause{Requirement: label, Name: c.name, Held: len(kept) > 0, Found: tally(len(kept), len(remaining), lost)}
		if !out.Held {
			out.Needs = c.needs(j)
			e.report.add(out)
			return
		}
		e.report.add(out)
		remaining = kept
	}
	for _, s := range remaining {
		s.counted = append(s.counted, label)
	}
	if q.threshold() > 1 && without != clauseThreshold {
		e.report.add(j.threshold(label, remaining))
	}
}

// threshold counts principals of the policy, each once. They are disjoint
// (Validate), so a statement belongs to one and no matching is to be solved
// (RULES K20).
func (j *judgement) threshold(label string, remaining []*candidate) Clause {
	var signed, missing []string
	for _, p := range j.requirement.Signers {
		a, err := p.party()
		name := j.compiled.name(p)
		if err == nil && slices.ContainsFunc(remaining, func(c *candidate) bool { return c.signerErr == nil && a.matches(c.signer) }) {
			signed = append(signed, name)
		} else {
			missing = append(missing, name)
		}
	}
	want := j.requirement.threshold()
	c := Clause{Requirement: label, Name: clauseThreshold, Held: len(signed) >= want, Found: fmt.Sprintf("%d of %d signers", len(signed), want)}
	if len(signed) > 0 {
		c.Found += ": " + strings.Join(signed, ", ")
	}
	if !c.Held {
		c.Needs = plural(want-len(signed), "more signature") + " by " + strings.Join(missing, " or ")
	}
	return c
}
