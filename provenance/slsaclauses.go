// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"
	"strings"
)

// slsaClauses are judged for SLSA provenance alone.
var slsaClauses = []statementClause{
	slsaClause("slsa.builder", func(j *judgement) bool { return len(j.requirement.Builders) > 0 },
		func(j *judgement, c *candidate) string {
			return unless(j.requirement.Builders, c.slsa.RunDetails.Builder.ID, "builder ")
		},
		func(j *judgement) string { return "a build by " + strings.Join(j.requirement.Builders, " or ") }),
	// Whoever may sign provenance could name any builder in it. Those of the
	// table speak through their own signers alone. K19.
	slsaClause("slsa.builderSigner", func(j *judgement) bool { return len(j.policy.Builders) > 0 },
		func(j *judgement, c *candidate) string {
			if level, known := j.policy.level(c.slsa.RunDetails.Builder.ID, c.signer); known && level == 0 {
				return fmt.Sprintf("%s does not sign for builder %s", j.signerName(c), c.slsa.RunDetails.Builder.ID)
			}
			return ""
		},
		func(*judgement) string {
			return "provenance signed by whom the table of builders names for its builder"
		}),
	slsaClause("slsa.level", func(j *judgement) bool { return j.requirement.MinLevel > 0 },
		func(j *judgement, c *candidate) string {
			if level := c.level(j.policy); level < j.requirement.MinLevel {
				return fmt.Sprintf("builder %s has level %d", c.slsa.RunDetails.Builder.ID, level)
			}
			return ""
		},
		func(j *judgement) string {
			return fmt.Sprintf("a builder of level %d or higher in the table of builders", j.requirement.MinLevel)
		}),
	slsaClause("slsa.buildType", func(j *judgement) bool { return len(j.requirement.BuildTypes) > 0 },
		func(j *judgement, c *candidate) string {
			return unless(j.requirement.BuildTypes, c.slsa.BuildDefinition.BuildType, "build type ")
		},
		func(j *judgement) string { return "a build of type " + strings.Join(j.requirement.BuildTypes, " or ") }),
	slsaClause("slsa.parameters", func(j *judgement) bool { return j.requirement.Parameters != nil },
		func(j *judgement, c *candidate) string {
			return j.requirement.Parameters.match(c.slsa.BuildDefinition.ExternalParameters)
		},
		func(*judgement) string {
			return "external parameters that the schema names, with the values that it allows"
		}),
	slsaClause("slsa.source", func(j *judgement) bool { return len(j.requirement.Sources) > 0 },
		func(j *judgement, c *candidate) string {
			if len(j.sources(c)) == 0 {
				return "none of " + plural(len(c.slsa.BuildDefinition.ResolvedDependencies), "resolved dependency")
			}
			return ""
		},
		func(j *judgement) string { return "a build from " + strings.Join(j.requirement.Sources, " or ") }),
	slsaClause("slsa.sourceRef", func(j *judgement) bool { return len(j.requirement.SourceRefs) > 0 },
		func(j *judgement, c *candidate) string {
			for _, d := range j.sources(c) {
				ref := strings.TrimPrefix(strings.TrimPrefix(d.URI, withoutRevision(d.URI)), "@")
				if !slices.ContainsFunc(j.requirement.SourceRefs, func(want string) bool { return matchesRef(want, ref) }) {
					return "ref " + clip(ref)
				}
			}
			return ""
		},
		func(j *judgement) string { return "a build from " + strings.Join(j.requirement.SourceRefs, " or ") }),
	slsaClause("slsa.sourceDigest", func(j *judgement) bool { return len(j.requirement.SourceDigests) > 0 },
		func(j *judgement, c *candidate) string {
			for _, d := range j.sources(c) {
				if !slices.ContainsFunc(j.requirement.SourceDigests, func(want string) bool {
					algorithm, value, _ := strings.Cut(want, ":")
					return d.Digest[algorithm] == value
				}) {
					return "source " + d.label()
				}
			}
			return ""
		},
		func(j *judgement) string { return "a build from " + strings.Join(j.requirement.SourceDigests, " or ") }),
	materialClause("materials.required", MaterialRule.missing, "every required material among the dependencies"),
	materialClause("materials.allowed", MaterialRule.foreign, "no dependency but the allowed ones"),
	materialClause("materials.denied", MaterialRule.forbidden, "none of the denied materials among the dependencies"),
	slsaClause("denied.builder", func(j *judgement) bool { return len(j.denied.builders) > 0 },
		func(j *judgement, c *candidate) string {
			if d, ok := j.denied.builders[c.slsa.RunDetails.Builder.ID]; ok {
				return "builder " + d.Builder + " is denied" + d.why()
			}
			return ""
		},
		func(*judgement) string { return "a build by a builder that no list denies" }),
	slsaClause("denied.material", func(j *judgement) bool { return len(j.denied.digests) > 0 },
		func(j *judgement, c *candidate) string {
			return j.denied.material(c.slsa.BuildDefinition.ResolvedDependencies)
		},
		func(*judgement) string { return "a build from nothing that a list denies" }),
}

// inputClauses come last: inputs are looked at only where nothing else refuses.
var inputClauses = []statementClause{
	slsaClause(clauseMaterials, func(j *judgement) bool {
		return slices.ContainsFunc(j.requirement.Materials, func(m MaterialRule) bool { return m.Verified })
	},
		func(j *judgement, c *candidate) string {
			for _, in := range j.inputs(c) {
				if reason := j.unverified(in); in.Needed && reason != "" {
					return in.what() + " " + reason
				}
			}
			return ""
		},
		func(*judgement) string { return "dependencies that the policy admits themselves" }),
}

func slsaClause(name string, applies func(*judgement) bool, judge func(*judgement, *candidate) string, needs func(*judgement) string) statementClause {
	return statementClause{
		name:    name,
		applies: func(j *judgement) bool { return j.requirement.PredicateType == PredicateSLSA && applies(j) },
		judge:   judge,
		needs:   needs,
	}
}

func materialClause(name string, judge func(MaterialRule, []ResourceDescriptor) string, needs string) statementClause {
	return slsaClause(name, func(j *judgement) bool { return len(j.requirement.Materials) > 0 },
		func(j *judgement, c *candidate) string {
			for _, m := range j.requirement.Materials {
				if reason := judge(m, m.of(c.slsa.BuildDefinition.ResolvedDependencies)); reason != "" {
					return reason
				}
			}
			return ""
		},
		func(*judgement) string { return needs })
}

// sources are the dependencies that come from an allowed source. Every one of
// them must be of an allowed ref and digest: were one enough, a build could name
// it beside the one that it used.
func (j *judgement) sources(c *candidate) []ResourceDescriptor {
	var out []ResourceDescriptor
	for _, d := range c.slsa.BuildDefinition.ResolvedDependencies {
		if slices.Contains(j.requirement.Sources, withoutRevision(d.URI)) && !climbs(d.URI) {
			out = append(out, d)
		}
	}
	return out
}

// level is what the policy's table makes of who built and who says so.
func (c *candidate) level(p Policy) int {
	level, _ := p.level(c.slsa.RunDetails.Builder.ID, c.signer)
	return level
}

// unless is empty where the list has the value.
func unless[T ~string](list []T, got T, what string) string {
	if slices.Contains(list, got) {
		return ""
	}
	return what + clip(string(got))
}
