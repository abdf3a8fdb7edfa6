// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// Lineage is an artifact and what it was made from, as far as provenance that
// counts under one policy says. Its JSON form is stable.
type Lineage struct {
	// Nodes are artifacts, other inputs and builders, each once. The first is the
	// artifact that was asked about.
	Nodes []LineageNode `json:"nodes"`
	// Edges lead from what was made to what it was made from, and to who made it.
	Edges []LineageEdge `json:"edges"`
}

// LineageNode is one artifact, input or builder.
type LineageNode struct {
	// Kind is "artifact", "builder", or "input" for what is no artifact.
	Kind string `json:"kind"`
	// Name is the repository of an artifact, the URI of another input, or the id
	// of a builder.
	Name string `json:"name"`
	// Digest is that of a manifest or an input. May be empty.
	Digest digest.Digest `json:"digest,omitempty"`
	// State is "verified" for an artifact that the policy admits and for a builder
	// whose provenance counts, "refused" for an artifact that it does not admit or
	// that cannot be judged, and "stated" for what verified provenance names and
	// nobody looked at.
	State string `json:"state"`
	// Problem is why it is not verified.
	Problem string `json:"problem,omitempty"`
	// Level is the SLSA build level that the policy gives to an artifact.
	Level int `json:"level,omitempty"`
}

// LineageEdge joins two nodes, by their places in Nodes.
type LineageEdge struct {
	From int `json:"from"`
	To   int `json:"to"`
	// Role is the role of an input, "builder", or empty where nobody says.
	Role string `json:"role"`
	// BuildType is what the builder did, on edges to builders.
	BuildType string `json:"buildType,omitempty"`
}

// Kinds and states of a LineageNode.
const (
	kindArtifact  = "artifact"
	kindInput     = "input"
	kindBuilder   = "builder"
	stateVerified = "verified"
	stateRefused  = "refused"
	stateStated   = "stated"
)

// Lineage walks from the artifact to its base models, adapters, datasets and
// builders. Each artifact on the way is judged under the policy, by the rule for
// its repository; only repositories that Policy.Lineage lists are asked, within
// its bounds, and only provenance that counts is followed. No content is read.
//
// Where a link is broken, because an artifact is not admitted or not found, the
// error names every such link, and the lineage comes with it. It wraps a
// *provenance.PolicyError for each that was refused.
func (c *Client) Lineage(ctx context.Context, ref string, p provenance.Policy) (*Lineage, error) {
	c.init()
	op := c.begin("lineage", ref)
	a, err := c.resolve(ctx, op)
	if err != nil {
		return nil, op.fail(err)
	}
	a.walk = newWalk(p, true)
	if err := a.judge(ctx, p); err != nil {
		return nil, op.fail(err)
	}
	g := &lineageGraph{lineage: &Lineage{}, nodes: make(map[LineageNode]int), broken: make(map[int]error)}
	g.artifact(a.ref.Name, a.desc.Digest, "", &step{artifact: a, report: a.report, links: a.walk.linksOf(a)})
	return g.lineage, op.fail(join(g.errors(), a.recordLineage(ctx)))
}

// recordLineage records the decision about the artifact that was asked about. A
// refusal is among the broken links already.
func (a *artifact) recordLineage(ctx context.Context) error {
	e := Event{Phase: phaseDecision, Allowed: a.report.Allowed, Report: a.report}
	if err := a.report.Err(); err != nil {
		e.Reason = err.Error()
	}
	return a.audit(ctx, e)
}

// linksOf are those of the artifact that a walk began with.
func (w *walk) linksOf(a *artifact) []link {
	if s := w.steps[place{a.ref.Name, string(a.desc.Digest)}]; s != nil {
		return s.links
	}
	return nil
}

// lineageGraph draws a walk.
type lineageGraph struct {
	lineage *Lineage
	nodes   map[LineageNode]int // by kind, name and digest
	broken  map[int]error       // why a node is not verified
}

// node returns the place of a node, and whether it is new.
func (g *lineageGraph) node(n LineageNode) (int, bool) {
	id := LineageNode{Kind: n.Kind, Name: n.Name, Digest: n.Digest}
	if i, ok := g.nodes[id]; ok {
		return i, false
	}
	g.nodes[id] = len(g.lineage.Nodes)
	g.lineage.Nodes = append(g.lineage.Nodes, n)
	return g.nodes[id], true
}

func (g *lineageGraph) edge(from, to int, role, buildType string) {
	g.lineage.Edges = append(g.lineage.Edges, LineageEdge{From: from, To: to, Role: role, BuildType: buildType})
}

// artifact draws one artifact and everything behind it. One that is too far away
// on one way and verified on another is verified.
func (g *lineageGraph) artifact(name string, d digest.Digest, role string, s *step) int {
	n := LineageNode{Kind: kindArtifact, Name: name, Digest: d, State: stateRefused, Problem: clip(s.problem)}
	var broken error
	switch {
	case s.report == nil:
		broken = fmt.Errorf("%s: %s", linkName(role, name, d), s.problem)
	case s.report.Allowed:
		n.State, n.Level = stateVerified, s.report.Level
	default:
		first := s.report.Refused()[0]
		n.Problem = clip(first.Name + ": " + first.Found)
		broken = fmt.Errorf("%s: %w", linkName(role, name, d), &provenance.PolicyError{Report: s.report})
	}
	at, isNew := g.node(n)
	if !isNew {
		if broken != nil || g.broken[at] == nil {
			return at
		}
		g.lineage.Nodes[at] = n
		delete(g.broken, at)
	}
	if broken != nil {
		g.broken[at] = broken
	}
	if s.report != nil {
		g.builders(at, s.report)
	}
	for _, l := range s.links {
		g.link(at, l)
	}
	return at
}

// errors names every node that is not verified and should be.
func (g *lineageGraph) errors() error {
	var errs []error
	for i := range g.lineage.Nodes {
		errs = append(errs, g.broken[i])
	}
	return errors.Join(errs...)
}

// builders draws who made an artifact, as the provenance that counted says.
func (g *lineageGraph) builders(from int, r *provenance.Report) {
	seen := make(map[[2]string]bool)
	for _, st := range r.Statements {
		id := [2]string{st.Builder, st.BuildType}
		if st.Builder == "" || len(st.Counted) == 0 || seen[id] {
			continue
		}
		seen[id] = true
		to, _ := g.node(LineageNode{Kind: kindBuilder, Name: clip(st.Builder), State: stateVerified})
		g.edge(from, to, kindBuilder, clip(st.BuildType))
	}
}

func (g *lineageGraph) link(from int, l link) {
	if l.to == nil {
		to, _ := g.node(LineageNode{Kind: kindInput, Name: clip(l.URI), Digest: l.Digest, State: stateStated, Problem: clip(l.Problem)})
		g.edge(from, to, clip(l.Role), "")
		return
	}
	g.edge(from, g.artifact(l.Repository, l.Manifest, l.Role, l.to), l.Role, "")
}

func linkName(role, name string, d digest.Digest) string {
	return strings.TrimSpace(role + " " + name + "@" + string(d))
}
