// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
)

// Names of clauses that code refers to. All names are part of the report's form.
const (
	clausePredicateType = "predicateType"
	clauseThreshold     = "threshold"
	clauseTag           = "tag"
	clauseMinSequence   = "minSequence"
	clauseDeniedNames   = "denials"
	clausePlaintext     = "plaintext"
	clauseSummary       = "summary"
	clauseMaterials     = "materials.verified"
)

// artifactClause is judged once for an artifact.
type artifactClause struct {
	name    string
	applies func(e *evaluation) bool // nil: always
	judge   func(e *evaluation) (found string, held bool)
	needs   string
}

func (e *evaluation) hasRule() bool { return e.rule != nil }

var artifactClauses = []artifactClause{
	{
		name: "policy",
		judge: func(e *evaluation) (string, bool) {
			if e.defect != nil {
				return e.defect.Error(), false
			}
			return "valid", true
		},
		needs: "a policy without errors",
	}, {
		name: "rule", applies: func(e *evaluation) bool { return e.defect == nil },
		judge: func(e *evaluation) (string, bool) {
			i, ok := e.compiled.scopes.find(e.repository)
			if !ok {
				return fmt.Sprintf("no rule for %q", clip(e.repository)), false
			}
			e.rule = &e.policy.Rules[i]
			e.report.Rule = slices.Clone(e.rule.Repositories)
			if e.name = e.rule.Name; e.name == "" {
				e.name = defaultName(e.repository)
			}
			return "rule " + strconv.Itoa(i), true
		},
		needs: "a rule whose repositories match the name; for a layout on disk, the repository it stands for, named with Policy.For",
	}, {
		name: "manifest",
		judge: func(e *evaluation) (string, bool) {
			if err := checkDigest(e.in.Manifest); err != nil {
				return err.Error(), false
			}
			return e.in.Manifest.String(), true
		},
		needs: "the SHA-256 digest of the manifest",
	}, {
		name: "clock",
		judge: func(e *evaluation) (string, bool) {
			if e.in.Now.IsZero() {
				return "no time", false
			}
			return e.in.Now.UTC().Format(time.RFC3339), true
		},
		needs: "a clock: without one nothing would ever expire",
	}, {
		name: "policyExpiry", applies: func(e *evaluation) bool { return !e.policy.Expires.IsZero() },
		judge: func(e *evaluation) (string, bool) {
			return "expires " + e.policy.Expires.UTC().Format(time.RFC3339), e.in.Now.Before(e.policy.Expires)
		},
		needs: "a policy that has not expired, or a correct clock",
	}, {
		name: "denials.current", applies: func(e *evaluation) bool { return e.defect == nil && len(e.policy.Denials) > 0 },
		judge: func(e *evaluation) (string, bool) {
			if reason := e.heed(); reason != "" {
				return reason, false
			}
			return plural(len(e.policy.Denials), "list") + " in force", true
		},
		needs: "every denial list that the policy names, signed and in force, and a correct clock",
	}, {
		name: "denied.digest", applies: func(e *evaluation) bool { return len(e.denied.digests) > 0 },
		judge: func(e *evaluation) (string, bool) {
			for _, d := range []digest.Digest{e.in.Manifest, e.in.IndexDigest} {
				if entry, ok := e.denied.digests[d]; ok {
					return string(d) + " is denied" + entry.why(), false
				}
			}
			return "not denied", true
		},
		needs: "an artifact that no list denies",
	}, {
		// Whoever encrypts again would else only have to leave the statement away.
		name: "denials.plaintext", applies: func(e *evaluation) bool { return e.hasRule() && len(e.denied.plaintexts) > 0 },
		judge: func(e *evaluation) (string, bool) {
			return plural(len(e.denied.plaintexts), "denied plaintext"), e.rule.Plaintext != nil
		},
		needs: "a rule that says who binds artifacts to their plaintext",
	}, {
		name: "index", applies: func(e *evaluation) bool { return e.hasRule() && !e.rule.AllowUnindexed },
		judge: func(e *evaluation) (string, bool) {
			if e.in.IndexDigest == "" {
				return "the artifact has no index", false
			}
			return e.in.IndexDigest.String(), true
		},
		needs: "an artifact with an index, or a rule with allowUnindexed",
	}, {
		name: "encrypted", applies: func(e *evaluation) bool { return e.hasRule() && e.rule.Encrypted },
		judge: func(e *evaluation) (string, bool) {
			return fmt.Sprintf("profile %q", clip(e.in.Profile)), e.in.Profile == ProfileEncrypted
		},
		needs: "an artifact of the encrypted profile",
	}, {
		name: "layerDigests", applies: func(e *evaluation) bool { return e.hasRule() && e.rule.CompareLayerDigests },
		judge: func(e *evaluation) (string, bool) {
			return layerDigests(e.in.LayerDigestsCompared), e.in.LayerDigestsCompared
		},
		needs: "whole-layer digests to be compared as well",
	}, {
		name: "plaintextCompared", applies: func(e *evaluation) bool { return e.hasRule() && e.rule.Plaintext != nil && e.rule.Plaintext.Compare },
		judge: func(e *evaluation) (string, bool) {
			return layerDigests(e.in.PlaintextCompared), e.in.PlaintextCompared
		},
		needs: "the content to be compared with its plaintext root",
	},
}
