// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

// EvaluateWithout is Evaluate with one clause left out, to show that no clause
// is idle.
func EvaluateWithout(p Policy, in Evidence, clause string) *Report { return p.evaluate(in, clause) }

// ClauseNames lists every clause, those of the requirements that apply whatever
// the rule says included.
func ClauseNames() []string {
	names := []string{clauseThreshold, clauseTag, clauseMinSequence, clauseDeniedNames}
	for _, c := range artifactClauses {
		names = append(names, c.name)
	}
	for _, c := range statementClauses {
		names = append(names, c.name)
	}
	return names
}

// Bounds that tests go one beyond.
const (
	MaxBundle     = maxBundle
	MaxStatement  = maxStatement
	MaxPolicy     = maxPolicy
	MaxLogEntries = maxLogEntries
	MaxTimestamps = maxTimestamps
	MaxSequence   = maxSequence
)

// VerifySignature is what a KeyVerifier does once per key.
var VerifySignature = verifySignature
