// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// judgement is an evaluation at one requirement.
type judgement struct {
	*evaluation
	requirement Requirement
}

// statementClause is judged for every statement that is still in question. judge
// returns why the statement does not count, or nothing.
type statementClause struct {
	name    string
	applies func(j *judgement) bool // nil: always
	judge   func(j *judgement, c *candidate) string
	needs   func(j *judgement) string
	remark  string // what the reader must know of how it was judged
}

// statementClauses are all of them, in the order in which a reader wants to hear
// about them: the first that nothing passes is the one reported.
var statementClauses = slices.Concat(commonClauses, summaryClauses, slsaClauses, thresholdClauses, inputClauses)

// commonClauses say what was signed, about what and by whom, and what a release
// and a plaintext statement say.
var commonClauses = []statementClause{
	{
		name: clausePredicateType,
		judge: func(j *judgement, c *candidate) string {
			got := c.Statement.PredicateType
			switch want := j.requirement.PredicateType; {
			case want == "" && (got == PredicateRelease || got == PredicateCosignSign), want != "" && got == want:
				return ""
			}
			return "type " + clip(strconv.Quote(got))
		},
		needs: func(j *judgement) string {
			return j.statement() + " signed by " + j.signerNames()
		},
	}, {
		name: "subject",
		judge: func(j *judgement, c *candidate) string {
			if len(c.Subjects) != 1 {
				return plural(len(c.Subjects), "subject") + ", want exactly 1"
			}
			if j.requirement.Plaintext && slices.ContainsFunc(j.plaintexts, func(p Plaintext) bool { return p.names(c.Subjects[0]) }) {
				return ""
			}
			if j.requirement.Plaintext || c.Subjects[0] != j.in.Manifest {
				return "about " + clip(string(c.Subjects[0]))
			}
			return ""
		},
		needs: func(j *judgement) string {
			if j.requirement.Plaintext {
				return "a statement about the plaintext of the artifact alone, and a plaintext statement that binds the two"
			}
			return "a statement about " + clip(string(j.in.Manifest)) + " alone"
		},
	}, {
		name: "signer",
		judge: func(j *judgement, c *candidate) string {
			if c.signerErr != nil {
				return c.signerErr.Error()
			}
			if _, ok := c.signer.among(j.requirement.Signers); ok {
				return ""
			}
			return "signed by " + c.Signer.String()
		},
		needs: func(j *judgement) string { return "a signature by " + j.signerNames() },
	}, {
		name: "validity", applies: func(j *judgement) bool {
			return slices.ContainsFunc(j.requirement.Signers, func(p Principal) bool { return !p.NotBefore.IsZero() || !p.NotAfter.IsZero() })
		},
		judge: func(j *judgement, c *candidate) string {
			p, _ := c.signer.among(j.requirement.Signers)
			return p.within(c.Times, j.in.Now)
		},
		needs: func(j *judgement) string { return "a signature made while " + j.signerNames() + " may sign" },
	}, {
		// A clock that lags lets everything that has expired pass.
		name: "time",
		judge: func(j *judgement, c *candidate) string {
			for _, t := range c.Times {
				if t.Sub(j.in.Now) > maxClockSkew {
					return "signed " + t.UTC().Format(time.RFC3339) + ", which is ahead of the clock"
				}
			}
			return ""
		},
		needs: func(*judgement) string { return "a correct clock" },
	}, {
		name: "denied.signer", applies: func(j *judgement) bool { return len(j.denied.keys)+len(j.denied.identities) > 0 },
		judge: func(j *judgement, c *candidate) string { return j.denied.signer(c.signer, c.Times) },
		needs: func(*judgement) string { return "a signature that no list denies" },
	}, {
		name: "form",
		judge: func(_ *judgement, c *candidate) string {
			if c.formErr != nil {
				return c.formErr.Error()
			}
			return ""
		},
		needs: func(j *judgement) string { return "well formed, " + j.statement() + " (FORMAT.md §9)" },
	},
	// Where the caller named a digest there is no name to be mistaken about,
	// unless the rule insists on one.
	releaseClause("release.name", func(j *judgement) bool { return j.in.Tag != "" || j.rule.Name != "" },
		func(j *judgement, c *candidate) string {
			if j.name == "" || c.release.Name != j.name {
				return fmt.Sprintf("name %q", c.release.Name)
			}
			return ""
		},
		func(j *judgement) string {
			if j.name == "" {
				return "a name to compare with: name the repository with Policy.For, or the model in the rule"
			}
			return fmt.Sprintf("a release named %q", j.name)
		}),
	releaseClause("release.tag", func(j *judgement) bool { return j.in.Tag != "" },
		func(j *judgement, c *candidate) string {
			if !slices.Contains(c.release.Tags, j.in.Tag) {
				return fmt.Sprintf("tags %.200q", c.release.Tags)
			}
			return ""
		},
		func(j *judgement) string {
			return fmt.Sprintf("a release that bears the tag %q, or a reference by digest", clip(j.in.Tag))
		}),
	releaseClause("release.profile", nil,
		func(j *judgement, c *candidate) string {
			if c.release.Profile != j.in.Profile {
				return fmt.Sprintf("profile %q", c.release.Profile)
			}
			return ""
		},
		func(j *judgement) string {
			return fmt.Sprintf("a release of profile %q, as the artifact is", clip(j.in.Profile))
		}),
	releaseClause("release.indexDigest", nil,
		func(j *judgement, c *candidate) string {
			if c.release.IndexDigest != j.in.IndexDigest {
				return "index " + string(c.release.IndexDigest)
			}
			return ""
		},
		func(j *judgement) string {
			if j.in.IndexDigest == "" {
				return "an artifact with an index, since a release names one"
			}
			return "a release of index " + clip(string(j.in.IndexDigest))
		}),
	releaseClause("release.expiry", nil,
		func(j *judgement, c *candidate) string {
			if !c.release.Expires.IsZero() && !j.in.Now.Before(c.release.Expires) {
				return "expired " + c.release.Expires.Format(time.RFC3339)
			}
			return ""
		},
		func(*judgement) string { return "a newer release statement, or a correct clock" }),
	releaseClause("release.sequence", func(j *judgement) bool { return j.rule.MinSequence > 0 },
		func(j *judgement, c *candidate) string {
			if c.release.Sequence < j.rule.MinSequence {
				return fmt.Sprintf("sequence %d", c.release.Sequence)
			}
			return ""
		},
		func(j *judgement) string { return fmt.Sprintf("a release of sequence %d or later", j.rule.MinSequence) }),
	releaseClause("denied.release", func(j *judgement) bool { return len(j.denied.names) > 0 },
		func(j *judgement, c *candidate) string { return j.denied.release(c.release) },
		func(*judgement) string { return "a release that no list denies" }),
	{
		name: "denied.plaintext", applies: func(j *judgement) bool {
			return j.requirement.PredicateType == PredicatePlaintext && len(j.denied.plaintexts) > 0
		},
		judge: func(j *judgement, c *candidate) string { return j.denied.plaintext(c.plaintext) },
		needs: func(*judgement) string { return "a plaintext that no list denies" },
	},
}

// thresholdClauses are judged for statements of every type.
var thresholdClauses = []statementClause{
	{
		name: "maxAge", applies: func(j *judgement) bool { return j.requirement.MaxAge > 0 },
		judge: (*judgement).judgeAge,
		needs: func(j *judgement) string {
			return fmt.Sprintf("a signature with a trusted time no older than %s", j.requirement.MaxAge)
		},
	}, {
		name: "logEntries", applies: func(j *judgement) bool { return j.requirement.MinLogEntries > 0 },
		judge: func(j *judgement, c *candidate) string {
			return fewer(c.LogEntries, j.requirement.MinLogEntries, "verified log entry")
		},
		needs: func(j *judgement) string { return plural(j.requirement.MinLogEntries, "verified log entry") },
	}, {
		name: "timestamps", applies: func(j *judgement) bool { return j.requirement.MinTimestamps > 0 },
		judge: func(j *judgement, c *candidate) string {
			return fewer(c.Timestamps, j.requirement.MinTimestamps, "verified timestamp")
		},
		needs: func(j *judgement) string { return plural(j.requirement.MinTimestamps, "verified timestamp") },
	}, {
		name: "scts", applies: func(j *judgement) bool { return j.requirement.MinSCTs > 0 },
		judge: func(j *judgement, c *candidate) string {
			return fewer(c.SCTs, j.requirement.MinSCTs, "verified certificate timestamp")
		},
		needs: func(j *judgement) string { return plural(j.requirement.MinSCTs, "verified certificate timestamp") },
	},
}

// releaseClause is a clause that only release statements can fail. Where a
// requirement takes cosign signatures too, those pass: they say nothing else.
func releaseClause(name string, applies func(*judgement) bool, judge func(*judgement, *candidate) string, needs func(*judgement) string) statementClause {
	return statementClause{
		name: name,
		applies: func(j *judgement) bool {
			t := j.requirement.PredicateType
			return (t == "" || t == PredicateRelease) && (applies == nil || applies(j))
		},
		judge: func(j *judgement, c *candidate) string {
			if c.Statement.PredicateType != PredicateRelease {
				return ""
			}
			return judge(j, c)
		},
		needs: needs,
	}
}

// judgeAge goes by the oldest of the trusted times: anybody can have an old
// signature stamped again.
func (j *judgement) judgeAge(c *candidate) string {
	// A signature by a key can be stamped for the first time long after it was
	// made; certificates end.
	if c.signer.Key != "" {
		return "signed by a key, which proves no time"
	}
	if len(c.Times) == 0 {
		return "no trusted time"
	}
	if at := oldest(c.Times); j.in.Now.Sub(at) > j.requirement.MaxAge {
		return "signed " + at.UTC().Format(time.RFC3339)
	}
	return ""
}

func (j *judgement) statement() string {
	switch t := j.requirement.PredicateType; t {
	case "":
		return "a release statement or a cosign signature"
	default:
		return "a statement of type " + t
	}
}

func (j *judgement) signerNames() string {
	var names []string
	for _, p := range j.requirement.Signers {
		names = append(names, j.compiled.name(p))
	}
	if n := j.requirement.threshold(); n > 1 {
		return strconv.Itoa(n) + " of " + strings.Join(names, ", ")
	}
	return strings.Join(names, " or ")
}
