// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// String draws the lineage as a tree for people, an artifact that stands twice
// in full only once.
func (l *Lineage) String() string {
	if len(l.Nodes) == 0 {
		return ""
	}
	var b strings.Builder
	fmt.Fprintln(&b, l.Nodes[0].text())
	t := lineageTree{Lineage: l, below: make(map[int][]LineageEdge), drawn: make(map[int]bool)}
	for _, e := range l.Edges {
		t.below[e.From] = append(t.below[e.From], e)
	}
	t.branch(&b, 0, "")
	return b.String()
}

type lineageTree struct {
	*Lineage
	below map[int][]LineageEdge
	drawn map[int]bool
}

func (l *lineageTree) branch(b *strings.Builder, from int, indent string) {
	l.drawn[from] = true
	edges := l.below[from]
	for i, e := range edges {
		mark, below := "├── ", "│   "
		if i == len(edges)-1 {
			mark, below = "└── ", "    "
		}
		n := l.Nodes[e.To]
		text := n.text()
		if e.Role != "" {
			text = e.Role + " " + text
		}
		if e.BuildType != "" {
			text += ", " + shortType(e.BuildType)
		}
		again := l.drawn[e.To] && n.Kind == kindArtifact
		if again {
			text += " (as above)"
		}
		fmt.Fprintf(b, "%s%s%s\n", indent, mark, text)
		if !again && n.Kind == kindArtifact {
			l.branch(b, e.To, indent+below)
		}
	}
}

// text is one node in one line.
func (n LineageNode) text() string {
	s := n.Name
	if n.Digest != "" {
		s += "@" + string(n.Digest)
	}
	s += ": " + n.State
	if n.Level > 0 {
		s += ", level " + strconv.Itoa(n.Level)
	}
	if n.Problem != "" {
		s += " (" + n.Problem + ")"
	}
	return s
}

// shortType is the telling part of a build type of FORMAT.md §9.3, and any other
// as it is.
func shortType(t string) string {
	if dir, version := path.Split(t); strings.HasPrefix(dir, "https://modelsec.github.io/buildtypes/") && version == "v1" {
		return path.Base(dir)
	}
	return t
}

// DOT draws the lineage in the language of Graphviz.
func (l *Lineage) DOT() string {
	shapes := map[string]string{kindArtifact: "box", kindBuilder: "ellipse", kindInput: "note"}
	colours := map[string]string{stateVerified: "darkgreen", stateRefused: "red", stateStated: "grey"}
	var b strings.Builder
	b.WriteString("digraph lineage {\n")
	for i, n := range l.Nodes {
		label := n.Name
		if n.Digest != "" {
			label += "\n" + string(n.Digest)
		}
		label += "\n" + n.State
		if n.Problem != "" {
			label += ": " + n.Problem
		}
		fmt.Fprintf(&b, "  n%d [shape=%s, color=%s, label=%s];\n", i, shapes[n.Kind], colours[n.State], dotString(label))
	}
	for _, e := range l.Edges {
		label := e.Role
		if e.BuildType != "" {
			label = shortType(e.BuildType)
		}
		fmt.Fprintf(&b, "  n%d -> n%d [label=%s];\n", e.From, e.To, dotString(label))
	}
	b.WriteString("}\n")
	return b.String()
}

// dotString quotes text that others wrote: in DOT a backslash begins an escape
// and a quote ends the string.
func dotString(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}
