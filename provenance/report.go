// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

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

func (r *Report) add(c Clause) { r.Clauses = append(r.Clauses, c) }

// close decides: every clause held.
func (r *Report) close(e *evaluation) {
	r.Allowed = len(r.Clauses) > 0 && len(r.Refused()) == 0
	expiring, lasting := false, false
	for _, c := range e.candidates {
		s := StatementReport{PredicateType: c.Statement.PredicateType, Signer: e.signerName(c), Counted: c.counted, Reasons: c.reasons}
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

// String explains the decision to people, a line for each clause that matters.
// What others wrote is shown without control characters.
func (r *Report) String() string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString(visible(fmt.Sprintf(format, args...)))
		b.WriteByte('\n')
	}
	decision := "refused"
	if r.Allowed {
		decision = "allowed"
	}
	line("%s: %s", decision, r.subject())
	if r.Unsafe != "" {
		line("  unsafe: %s", r.Unsafe)
	}
	for _, c := range r.Refused() {
		line("  %s: found %s", c.label(), c.Found)
		line("    needs %s", c.Needs)
	}
	for _, s := range r.Statements {
		what := s.Source
		if s.PredicateType != "" {
			what = s.PredicateType + " by " + s.Signer
		}
		if len(s.Counted) > 0 {
			line("  counted for %s: %s", strings.Join(s.Counted, ", "), what)
			continue
		}
		line("  not counted: %s: %s", what, strings.Join(s.Reasons, "; "))
	}
	line("  rollback %s, layer digests %s", r.Rollback, r.LayerDigests)
	return b.String()
}

// summary is one line: the first clause that refused.
func (r *Report) summary() string {
	refused := r.Refused()
	if len(refused) == 0 {
		return visible("policy refuses " + r.subject())
	}
	c := refused[0]
	s := fmt.Sprintf("policy refuses %s: %s: found %s; needs %s", r.subject(), c.label(), c.Found, c.Needs)
	if n := len(refused) - 1; n > 0 {
		s += " (and " + plural(n, "more clause") + ")"
	}
	return visible(s)
}

func (r *Report) subject() string {
	s := clip(r.Reference)
	if r.Tag != "" {
		s += ":" + clip(r.Tag)
	}
	if r.Manifest != "" {
		s += "@" + clip(string(r.Manifest))
	}
	return s
}

func (c Clause) label() string {
	if c.Requirement == "" {
		return c.Name
	}
	return c.Requirement + "." + c.Name
}

// visible replaces what a terminal or a log would act on: others wrote parts of s.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func requirementName(i int) string { return "require[" + strconv.Itoa(i) + "]" }

func layerDigests(compared bool) string {
	if compared {
		return "compared"
	}
	return "not compared"
}

func fewer(got, want int, what string) string {
	if got >= want {
		return ""
	}
	return plural(got, what)
}

func plural(n int, what string) string {
	if n != 1 {
		if stem, ok := strings.CutSuffix(what, "y"); ok {
			what = stem + "ies"
		} else {
			what += "s"
		}
	}
	return strconv.Itoa(n) + " " + what
}

// tally says how many statements passed a clause and what was wrong with the
// others, a few of them by example.
func tally(kept, of int, lost []string) string {
	const examples = 3
	s := strconv.Itoa(kept) + " of " + plural(of, "statement")
	if len(lost) > 0 {
		slices.Sort(lost)
		s += ": " + strings.Join(lost[:min(len(lost), examples)], "; ")
	}
	if len(lost) > examples {
		s += "; and so on"
	}
	return s
}
