// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

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
	if r.Plaintext != "" {
		line("  plaintext %s", r.Plaintext)
	}
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

// tallyExamples is how many of the things that were wrong are shown.
const tallyExamples = 3

// tally says how many statements passed a clause and what was wrong with the
// others, a few of them by example.
func tally(kept, of int, lost []string) string {
	s := strconv.Itoa(kept) + " of " + plural(of, "statement")
	if len(lost) > 0 {
		slices.Sort(lost)
		s += ": " + strings.Join(lost[:min(len(lost), tallyExamples)], "; ")
	}
	if len(lost) > tallyExamples {
		s += "; and so on"
	}
	return s
}
