// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// MaterialRule is what a requirement demands of the dependencies of one role
// (POLICY.md §1.6).
type MaterialRule struct {
	// Role is one of the Role constants. Empty: every dependency, also of build
	// types that know no roles.
	Role string
	// Required must each be among the dependencies.
	Required []MaterialMatch
	// Allowed are the only ones there may be. Default: any.
	Allowed []MaterialMatch
	// Denied must not be there.
	Denied []MaterialMatch
	// Verified demands that each dependency is itself an artifact that the policy
	// admits, fetched from a repository of Policy.Lineage.
	Verified bool
}

// MaterialMatch matches a dependency by its URI, its digest, or both.
type MaterialMatch struct {
	// URI without a revision, or all below it where it ends in /*.
	URI string
	// Digest of it; of an OCI artifact, its manifest.
	Digest digest.Digest
}

// Lineage bounds where and how far the dependencies of an artifact are followed
// (RULES K42). The zero value follows none.
type Lineage struct {
	// Repositories are patterns as in a Rule, without *: nothing that a statement
	// names is asked for elsewhere.
	Repositories []string
	// MaxDepth is how many steps are taken. If less than or equal to 0, 4; at most 16.
	MaxDepth int
	// MaxArtifacts is how many artifacts are looked at. If less than or equal to
	// 0, 64; at most 1024.
	MaxArtifacts int
}

// Bounds of Lineage.
const (
	defaultDepth     = 4
	maxDepth         = 16
	defaultArtifacts = 64
	maxArtifacts     = 1024
)

func (c *compiled) lineage(l Lineage) error {
	s := scopes{}
	for _, text := range l.Repositories {
		p, err := parsePattern(text)
		if err != nil {
			return err
		}
		if text == "*" {
			return errors.New("pattern * would follow statements anywhere: name the hosts or repositories")
		}
		if err := s.add(p, 0); err != nil {
			return err
		}
	}
	if l.MaxDepth < 0 || l.MaxDepth > maxDepth {
		return fmt.Errorf("maxDepth %d: want 1 to %d", l.MaxDepth, maxDepth)
	}
	if l.MaxArtifacts < 0 || l.MaxArtifacts > maxArtifacts {
		return fmt.Errorf("maxArtifacts %d: want 1 to %d", l.MaxArtifacts, maxArtifacts)
	}
	if len(l.Repositories) == 0 && (l.MaxDepth > 0 || l.MaxArtifacts > 0) {
		return errors.New("no repositories: name at least one pattern")
	}
	c.followed = s
	return nil
}

// Depth and Artifacts are the bounds in force.
func (l Lineage) Depth() int { return orDefault(l.MaxDepth, defaultDepth) }

// Artifacts is how many artifacts are looked at, the first one included.
func (l Lineage) Artifacts() int { return orDefault(l.MaxArtifacts, defaultArtifacts) }

func orDefault(n, preset int) int {
	if n <= 0 {
		return preset
	}
	return n
}

func (m MaterialRule) check(follows bool) error {
	if m.Role != "" && !slices.Contains(roles, m.Role) {
		return fmt.Errorf("role %q: want one of %q", clip(m.Role), roles)
	}
	if len(m.Required)+len(m.Allowed)+len(m.Denied) == 0 && !m.Verified {
		return errors.New("demands nothing: want required, allowed, denied or verified")
	}
	if m.Verified && !follows {
		return errors.New("verified can never be met: the policy has no lineage repositories to look in")
	}
	for _, list := range [][]MaterialMatch{m.Required, m.Allowed, m.Denied} {
		for _, w := range list {
			if err := w.check(); err != nil {
				return err
			}
		}
	}
	for _, w := range m.Required {
		if slices.Contains(m.Denied, w) {
			return fmt.Errorf("%s is required and denied", w)
		}
	}
	return nil
}

func (w MaterialMatch) check() error {
	if w.URI == "" && w.Digest == "" {
		return errors.New("a material without uri and digest would match everything")
	}
	if u := strings.TrimSuffix(w.URI, "/*"); w.URI != "" && (u == "" || !printable(u) || strings.Contains(u, "*") || withoutRevision(u) != u) {
		return fmt.Errorf("uri %q: want the exact URI without a revision, or all below one with /*", clip(w.URI))
	}
	if w.Digest != "" {
		return checkDigest(w.Digest)
	}
	return nil
}

func (w MaterialMatch) matches(d ResourceDescriptor) bool {
	if w.Digest != "" && d.Digest["sha256"] != w.Digest.Encoded() {
		return false
	}
	uri := withoutRevision(d.URI)
	if below, ok := strings.CutSuffix(w.URI, "*"); ok {
		return len(uri) > len(below) && strings.HasPrefix(uri, below)
	}
	return w.URI == "" || uri == w.URI
}

// admits is matches for those that are welcome. A path that climbs, as a part of
// the revision too, is not where it begins: whoever fetched it was elsewhere.
func (w MaterialMatch) admits(d ResourceDescriptor) bool {
	return w.matches(d) && (w.Digest != "" || !climbs(d.URI))
}

// climbs reports whether a URI has a dot segment, in any spelling that somebody
// may take for one.
func climbs(uri string) bool {
	uri = strings.ReplaceAll(strings.ToLower(uri), "%2e", ".")
	segments := strings.FieldsFunc(strings.ReplaceAll(uri, "%2f", "/"), func(r rune) bool { return r == '/' || r == '\\' })
	return slices.Contains(segments, ".") || slices.Contains(segments, "..")
}

// String describes the material for people.
func (w MaterialMatch) String() string {
	switch {
	case w.URI == "":
		return string(w.Digest)
	case w.Digest == "":
		return w.URI
	}
	return w.URI + "@" + string(w.Digest)
}

// of returns the inputs of a build that have the rule's role.
func (m MaterialRule) of(all []ResourceDescriptor) []ResourceDescriptor {
	if m.Role == "" {
		return all
	}
	var out []ResourceDescriptor
	for _, d := range all {
		if d.Role() == m.Role {
			out = append(out, d)
		}
	}
	return out
}

// missing, foreign and forbidden say why the dependencies of a build do not do,
// or nothing.
func (m MaterialRule) missing(deps []ResourceDescriptor) string {
	for _, w := range m.Required {
		if !slices.ContainsFunc(deps, w.admits) {
			return "no " + m.what() + " " + w.String()
		}
	}
	return ""
}

func (m MaterialRule) foreign(deps []ResourceDescriptor) string {
	for _, d := range deps {
		if len(m.Allowed) > 0 && !slices.ContainsFunc(m.Allowed, func(w MaterialMatch) bool { return w.admits(d) }) {
			return m.what() + " " + d.label() + " is not allowed"
		}
	}
	return ""
}

func (m MaterialRule) forbidden(deps []ResourceDescriptor) string {
	for _, d := range deps {
		if slices.ContainsFunc(m.Denied, func(w MaterialMatch) bool { return w.matches(d) }) {
			return m.what() + " " + d.label() + " is denied"
		}
	}
	return ""
}

func (m MaterialRule) what() string {
	if m.Role == "" {
		return "dependency"
	}
	return m.Role
}

// Artifact is what names an input of a build as an OCI artifact.
type Artifact struct {
	// Repository is host/path.
	Repository string
	// Manifest is the digest of its manifest.
	Manifest digest.Digest
	// Role is one of the Role constants, or empty.
	Role string
}

// artifact reads the dependency as an OCI artifact: the URI is host/path, with
// or without oci:// before it and a tag or digest after it, and the digest is
// that of its manifest.
func (d ResourceDescriptor) artifact() (Artifact, error) {
	a := Artifact{Manifest: digest.NewDigestFromEncoded(digest.SHA256, d.Digest["sha256"]), Role: d.Role()}
	if err := checkHex(d.Digest["sha256"]); err != nil {
		return Artifact{}, err
	}
	name, pin, pinned := strings.Cut(strings.TrimPrefix(d.URI, "oci://"), "@")
	if pinned && pin != string(a.Manifest) {
		return Artifact{}, fmt.Errorf("uri %q names another digest than sha256:%s", clip(d.URI), a.Manifest.Encoded())
	}
	slash := strings.LastIndexByte(name, '/')
	if colon := strings.LastIndexByte(name, ':'); colon > slash && tagForm.MatchString(name[colon+1:]) {
		name = name[:colon]
	}
	if !isRepository(name) {
		return Artifact{}, fmt.Errorf("uri %q is no OCI artifact: want host/path", clip(d.URI))
	}
	a.Repository = name
	return a, nil
}

// label names a dependency in a report.
func (d ResourceDescriptor) label() string {
	if hex := d.Digest["sha256"]; hex != "" {
		return clip(withoutRevision(d.URI)) + "@sha256:" + clip(hex)
	}
	return clip(d.URI)
}
