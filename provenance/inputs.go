// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// Input is something that a build used, as its provenance says.
type Input struct {
	// Artifact names it where it is an OCI artifact in a repository that the
	// policy follows; else only Role is set and Problem says why.
	Artifact
	// URI and Digest are as the provenance has them: others wrote them.
	URI    string
	Digest digest.Digest
	// Needed says that a requirement wants the input verified.
	Needed bool
	// Problem is why it cannot be looked at. Empty: it can.
	Problem string
}

// Inputs returns the inputs of the builds that count for the artifact, each
// once: what the policy lets a caller look at (RULES K42), and must be given
// reports of in Evidence.Materials where Needed. Nothing follows from statements
// that count for nothing, and an artifact that is refused for another reason has
// no inputs.
func (p Policy) Inputs(in Evidence) []Input {
	e := p.run(in, clauseMaterials)
	if !e.report.Allowed {
		return nil
	}
	return e.inputsFound
}

// inputs are those of one build.
func (j *judgement) inputs(c *candidate) []Input {
	var out []Input
	for _, d := range c.slsa.BuildDefinition.ResolvedDependencies {
		in := Input{URI: d.URI, Digest: digest.NewDigestFromEncoded(digest.SHA256, d.Digest["sha256"])}
		a, err := d.artifact()
		switch {
		case err != nil:
			in.Problem = err.Error()
		case j.compiled.followed == nil:
			in.Problem = "the policy follows no lineage"
		default:
			if _, ok := j.compiled.followed.find(a.Repository); !ok {
				in.Problem = fmt.Sprintf("repository %q is outside of the lineage that the policy follows", a.Repository)
			}
		}
		if checkDigest(in.Digest) != nil {
			in.Digest = ""
		}
		if in.Problem == "" {
			in.Artifact = a
		}
		in.Role = d.Role()
		in.Needed = slices.ContainsFunc(j.requirement.Materials, func(m MaterialRule) bool { return m.Verified && (m.Role == "" || m.Role == in.Role) })
		out = append(out, in)
	}
	return out
}

// note keeps an input that was not seen yet. What one requirement needs is
// needed.
func (e *evaluation) note(in Input) {
	id := in
	id.Needed = false
	if i, ok := e.inputAt[id]; ok {
		e.inputsFound[i].Needed = e.inputsFound[i].Needed || in.Needed
		return
	}
	if e.inputAt == nil {
		e.inputAt = make(map[Input]int)
	}
	e.inputAt[id] = len(e.inputsFound)
	e.inputsFound = append(e.inputsFound, in)
}

// unverified says why an input is not known to be admitted, or nothing. A report
// under any other policy says nothing here.
func (j *judgement) unverified(in Input) string {
	if in.Problem != "" {
		return in.Problem
	}
	why := "was not looked at: give a report of it, unless something else refuses as well"
	for _, m := range j.in.Materials {
		if m.Repository != in.Repository || m.Manifest != in.Manifest {
			continue
		}
		switch r := m.Report; {
		case r == nil:
			why = "cannot be judged: " + clipAt(m.Problem, maxReason)
		case r.Manifest != in.Manifest || r.Repository != in.Repository || r.Policy != j.report.Policy:
			why = "has a report about something else"
		case !r.Allowed:
			why = "is refused"
			if refused := r.Refused(); len(refused) > 0 {
				why += ": " + clipAt(refused[0].label()+": "+refused[0].Found, maxReason)
			}
		default:
			return ""
		}
	}
	return why
}

func (in Input) what() string {
	role := in.Role
	if role == "" {
		role = "dependency"
	}
	return role + " " + clip(in.URI) + "@" + string(in.Digest)
}
