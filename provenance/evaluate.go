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
	// Denials are proven statements of denial lists, for a policy that names any.
	// Of those that nobody whom it names signed nothing follows.
	Denials []Verified
	// Materials are reports of what the artifact was made from: of every Input
	// that the policy needs one of.
	Materials []MaterialReport
	// Rejected are the bundles that none proved. They only make the report say more.
	Rejected []Rejection
	// Now is the caller's clock.
	Now time.Time
	// LayerDigestsCompared says that the caller compares whole-layer digests for
	// everything it releases.
	LayerDigestsCompared bool
	// PlaintextCompared says that the caller compares the content with a root of
	// Report.Plaintexts before it releases any of it.
	PlaintextCompared bool
}

// MaterialReport is what is known about an Input.
type MaterialReport struct {
	// Repository and Manifest are those of the Input.
	Repository string
	Manifest   digest.Digest
	// Report is what the same policy says of it, judged as an artifact of that
	// repository, by digest. Nil: it could not be judged.
	Report *Report
	// Problem is why not.
	Problem string
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
// gains nothing by it (RULES K28); only the signers of denial lists can take a
// permission away.
func (p Policy) Evaluate(in Evidence) *Report {
	return p.evaluate(in, "")
}

// evaluate leaves out the clause named, so that tests can show that each one
// refuses something by itself.
func (p Policy) evaluate(in Evidence, without string) *Report {
	return p.run(in, without).report
}

func (p Policy) run(in Evidence, without string) *evaluation {
	e := &evaluation{policy: p, in: in, repository: p.repository(in.Reference), report: newReport(in), without: without, denied: newDenialsInForce()}
	e.compiled, e.defect = p.compile()
	e.report.Repository = e.repository
	e.report.Policy = p.digest(e.compiled)
	if p.unsafe && e.defect == nil {
		e.report.Unsafe = p.reason
		e.report.add(Clause{Name: "unsafe", Held: true, Found: "everything is accepted: " + p.reason})
	} else {
		e.judge()
	}
	e.report.close(e)
	return e
}

// evaluation is what clauses look at.
type evaluation struct {
	policy     Policy
	compiled   *compiled
	defect     error
	in         Evidence
	without    string // the clause to leave out
	repository string
	rule       *Rule
	name       string // that a release must bear
	denied     *denialsInForce
	candidates []*candidate
	plaintexts []Plaintext // that the artifact is proven to hold

	inputsFound []Input
	inputAt     map[Input]int
	levels      []int // of every requirement for provenance
	report      *Report
}

// candidate is a statement on its way through the requirements.
type candidate struct {
	Verified
	signer    party
	signerErr error
	release   Release // where the type says so; zero where formErr is set
	plaintext Plaintext
	summary   Summary
	slsa      Provenance
	formErr   error
	counted   []string
	reasons   []string
}

func (e *evaluation) judge() {
	for _, c := range artifactClauses {
		if c.name == e.without || c.applies != nil && !c.applies(e) {
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
	if e.rule.Plaintext != nil {
		clauses, counted := e.require(clausePlaintext, Requirement{PredicateType: PredicatePlaintext, Signers: e.rule.Plaintext.Signers})
		e.report.add(clauses...)
		for _, c := range counted {
			e.plaintexts = append(e.plaintexts, c.plaintext)
		}
	}
	e.report.add(e.requirements()...)
	if label := e.impliedRelease(); label != "" && label != e.without {
		clauses, _ := e.require(label, Requirement{PredicateType: PredicateRelease, Signers: e.rule.signers()})
		e.report.add(clauses...)
	}
}

// requirements judges the summary that can stand in for the requirements, and
// else those. Where neither suffices, the reader hears of both.
func (e *evaluation) requirements() []Clause {
	var summary, out []Clause
	if e.rule.Summary != nil {
		summary, _ = e.require(clauseSummary, e.rule.Summary.requirement())
		if allHeld(summary) {
			e.report.Summary = true
			return summary
		}
	}
	for i, q := range e.rule.Require {
		clauses, counted := e.require(requirementName(i), q)
		out = append(out, clauses...)
		e.learn(q, counted)
	}
	if allHeld(out) {
		return out
	}
	return append(summary, out...)
}

// learn keeps what the provenance that counts says of the build.
func (e *evaluation) learn(q Requirement, counted []*candidate) {
	if q.PredicateType != PredicateSLSA || len(counted) == 0 {
		return
	}
	level := 0
	for _, c := range counted {
		level = max(level, c.level(e.policy))
		for _, in := range (&judgement{evaluation: e, requirement: q}).inputs(c) {
			e.note(in)
		}
	}
	e.levels = append(e.levels, level)
}

// impliedRelease names the requirement for a release statement that applies
// whatever the rule says, or nothing. A tag is whatever the registry says
// (POLICY.md §3), and a sequence stands nowhere else: not the one that a rule
// asks for, nor the one that a list denies. One statement must meet all of it,
// or an old release could lend its tag to a new one.
func (e *evaluation) impliedRelease() string {
	switch {
	case e.in.Tag != "":
		return clauseTag
	case e.rule.MinSequence > 0:
		return clauseMinSequence
	case len(e.denied.names[e.name]) > 0:
		return clauseDeniedNames
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
		case PredicatePlaintext:
			c.plaintext, c.formErr = ParsePlaintext(v.Statement)
		case PredicateSummary:
			c.summary, c.formErr = ParseSummary(v.Statement)
		}
		e.candidates = append(e.candidates, c)
	}
}

// require judges one requirement: statements pass clause after clause, each by
// itself, and who signed what remains is counted.
func (e *evaluation) require(label string, q Requirement) (out []Clause, counted []*candidate) {
	remaining := slices.Clone(e.candidates)
	j := &judgement{evaluation: e, requirement: q}
	for _, c := range statementClauses {
		if c.name == e.without || c.applies != nil && !c.applies(j) {
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
		judged := Clause{Requirement: label, Name: c.name, Held: len(kept) > 0, Found: tally(len(kept), len(remaining), lost) + c.remark}
		if !judged.Held {
			judged.Needs = c.needs(j)
			return append(out, judged), nil
		}
		out = append(out, judged)
		remaining = kept
	}
	for _, s := range remaining {
		s.counted = append(s.counted, label)
	}
	if q.threshold() > 1 && e.without != clauseThreshold {
		out = append(out, j.threshold(label, remaining))
	}
	return out, remaining
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
