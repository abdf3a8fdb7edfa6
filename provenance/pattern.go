// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"regexp"
	"strings"
)

// pattern is a parsed repository pattern (POLICY.md §1.1). A prefix ends in a
// slash, except that of "*", which is empty.
type pattern struct {
	text   string
	prefix bool
}

var (
	// hostForm and pathForm are the lower-case names that references have: a
	// pattern in another spelling would never match.
	hostForm = `(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?`
	pathForm = `[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*`

	repositoryForm = regexp.MustCompile(`^` + hostForm + `(?:/` + pathForm + `)+$`)
	prefixForm     = regexp.MustCompile(`^` + hostForm + `(?:/` + pathForm + `)*/$`)
)

const layoutPrefix = "oci:"

func parsePattern(s string) (pattern, error) {
	if s == "*" {
		return pattern{prefix: true}, nil
	}
	if strings.HasPrefix(s, layoutPrefix) {
		return pattern{}, fmt.Errorf("pattern %q: a layout on disk matches no pattern but *: the caller names the repository it stands for (Policy.For)", clip(s))
	}
	p := pattern{text: s}
	if p.text, p.prefix = strings.CutSuffix(s, "*"); p.prefix && prefixForm.MatchString(p.text) {
		return p, nil
	}
	if p.prefix || !repositoryForm.MatchString(s) || len(s) > maxName {
		return pattern{}, fmt.Errorf("pattern %q: want host/path, host/path/*, host/* or *, in lower case", clip(s))
	}
	return p, nil
}

// ancestors yields the prefixes that hold everything that p matches, the nearest
// first, p itself excluded.
func (p pattern) ancestors(yield func(pattern) bool) {
	text := strings.TrimSuffix(p.text, "/")
	for text != "" {
		text = text[:strings.LastIndexByte(text, '/')+1]
		if !yield(pattern{text, true}) {
			return
		}
		text = strings.TrimSuffix(text, "/")
	}
}

// scopes says which rule a pattern belongs to.
type scopes map[pattern]int

// add records the pattern of a rule.
func (s scopes) add(p pattern, rule int) error {
	if other, ok := s[p]; ok && other != rule {
		return fmt.Errorf("pattern %q stands in rules %d and %d: exactly one rule may apply to a repository", p, other, rule)
	}
	s[p] = rule
	return nil
}

// disjoint refuses two patterns of different rules that could match one name:
// of such a pair, one is always an ancestor of the other.
func (s scopes) disjoint() error {
	for p, rule := range s {
		for a := range p.ancestors {
			if other, ok := s[a]; ok && other != rule {
				return fmt.Errorf("pattern %q of rule %d also matches what %q of rule %d does: exactly one rule may apply to a repository", a, other, p, rule)
			}
		}
	}
	return nil
}

// find returns the rule for a repository. A name in a form that no reference has
// is matched by * alone, as a layout on disk is.
func (s scopes) find(repository string) (int, bool) {
	if isRepository(repository) {
		p := pattern{text: repository}
		if rule, ok := s[p]; ok {
			return rule, true
		}
		for a := range p.ancestors {
			if rule, ok := s[a]; ok {
				return rule, true
			}
		}
	}
	rule, ok := s[pattern{prefix: true}]
	return rule, ok
}

// String returns the pattern as a policy spells it.
func (p pattern) String() string {
	if p.prefix {
		return p.text + "*"
	}
	return p.text
}

func isRepository(name string) bool {
	return len(name) <= maxName && !strings.HasPrefix(name, layoutPrefix) && repositoryForm.MatchString(name)
}

// defaultName is the repository path without host: what a release is called
// where nobody said otherwise. A layout on disk has none.
func defaultName(repository string) string {
	if !isRepository(repository) {
		return ""
	}
	_, path, _ := strings.Cut(repository, "/")
	return path
}
