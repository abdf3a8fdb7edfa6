// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// PredicateSummary is a SLSA verification summary (VSA): somebody else judged
// the artifact under a policy of his.
const PredicateSummary = "https://slsa.dev/verification_summary/v1"

const (
	summaryPassed = "PASSED"
	slsaVersion   = "1.2"
	levelPrefix   = "SLSA_BUILD_LEVEL_"
)

// Summary is a verification summary. It reads what any verifier wrote: members
// that it does not name are ignored.
type Summary struct {
	Verifier    SummaryVerifier      `json:"verifier"`
	Verified    time.Time            `json:"timeVerified"`
	Resource    string               `json:"resourceUri"`
	Policy      ResourceDescriptor   `json:"policy"`
	Inputs      []ResourceDescriptor `json:"inputAttestations,omitempty"`
	Result      string               `json:"verificationResult"`
	Levels      []string             `json:"verifiedLevels"`
	SLSAVersion string               `json:"slsaVersion,omitempty"`
}

// SummaryVerifier is who judged. Its ID means what the signer's trust makes it mean.
type SummaryVerifier struct {
	ID string `json:"id"`
}

// NewSummary returns the statement that a report allowed an artifact, as the
// verifier with this id says. policyURI says where the policy can be found and
// may be empty; what it is says its digest. A report that refuses, or that comes
// from UnsafeAcceptUnsigned, has no summary.
func NewSummary(r *Report, verifierID, policyURI string) (Statement, error) {
	switch {
	case r == nil || !r.Allowed:
		return Statement{}, formatError("summary: the report does not allow the artifact")
	case r.Unsafe != "" || r.Policy == "":
		return Statement{}, formatError("summary: no policy judged the artifact")
	case verifierID == "" || !printable(verifierID) || !printable(policyURI):
		return Statement{}, formatError("summary: verifier id %q: want a URI", clip(verifierID))
	}
	s := Summary{Verifier: SummaryVerifier{ID: verifierID}, Verified: r.Time.UTC().Truncate(time.Second), Resource: r.Repository,
		Policy: ResourceDescriptor{URI: policyURI, Digest: map[string]string{"sha256": r.Policy.Encoded()}},
		Result: summaryPassed, Levels: []string{fmt.Sprint(levelPrefix, r.Level)}, SLSAVersion: slsaVersion}
	for _, d := range r.inputs() {
		s.Inputs = append(s.Inputs, ResourceDescriptor{Digest: map[string]string{"sha256": d.Encoded()}})
	}
	predicate, err := json.Marshal(s)
	if err != nil {
		return Statement{}, err
	}
	return Statement{PredicateType: PredicateSummary, Predicate: predicate}, nil
}

// ParseSummary reads a verification summary. It says nothing about whether the
// result was PASSED.
func ParseSummary(st Statement) (Summary, error) {
	if st.PredicateType != PredicateSummary {
		return Summary{}, formatError("predicate type %q, want %q", clip(st.PredicateType), PredicateSummary)
	}
	var s Summary
	if err := strictjson.UnmarshalLenient(st.Predicate, &s, maxStatement); err != nil {
		return Summary{}, formatError("summary: %w", err)
	}
	if err := s.check(); err != nil {
		return Summary{}, formatError("summary: %w", err)
	}
	return s, nil
}

func (s Summary) check() error {
	for _, m := range []struct{ name, value string }{
		{"verifier.id", s.Verifier.ID}, {"resourceUri", s.Resource}, {"verificationResult", s.Result},
	} {
		if m.value == "" || !printable(m.value) {
			return fmt.Errorf("%s %q: want a value of at most %d printable bytes", m.name, clip(m.value), maxName)
		}
	}
	if s.Verified.IsZero() {
		return errors.New("timeVerified is missing")
	}
	if err := checkHex(s.Policy.Digest["sha256"]); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	return nil
}

// level is the highest build level that the summary claims.
func (s Summary) level() int {
	most := 0
	for _, l := range s.Levels {
		for n := 1; n <= maxLevel; n++ {
			if l == fmt.Sprint(levelPrefix, n) {
				most = max(most, n)
			}
		}
	}
	return most
}

// SummaryRule admits an artifact on the word of a verifier, in place of the
// requirements of its rule (POLICY.md §1.8).
type SummaryRule struct {
	// Signers are the verifiers, at least one. None of them may sign anything else
	// that the rule asks for (RULES K23).
	Signers []Principal
	// Threshold is how many of them must have signed. Default: 1.
	Threshold int
	// Verifiers are the values that verifier.id may have, at least one.
	Verifiers []string
	// Policies are the digests of the policies under which they may have judged,
	// as in Report.Policy, at least one.
	Policies []digest.Digest
	// MaxAge bounds how long ago they judged, by their own word. It is required.
	MaxAge time.Duration
	// MinLevel is the least build level that they must have found. Default: 0, any.
	MinLevel int
}

func (r *SummaryRule) threshold() int { return max(r.Threshold, 1) }

func (c *compiled) summary(r *SummaryRule) error {
	if r == nil {
		return nil
	}
	switch {
	case len(r.Signers) == 0:
		return errors.New("no signers: name at least one principal")
	case r.Threshold < 0 || r.threshold() > len(r.Signers):
		return fmt.Errorf("threshold %d of %d signers can never be met: want 1 to %d", r.Threshold, len(r.Signers), len(r.Signers))
	case len(r.Verifiers) == 0:
		return errors.New("no verifiers: name at least one verifier id")
	case len(r.Policies) == 0:
		return errors.New("no policies: name the digest of at least one policy")
	case r.MaxAge <= 0:
		return fmt.Errorf("maxAge %s: want a positive duration", r.MaxAge)
	case r.MinLevel < 0 || r.MinLevel > maxLevel:
		return fmt.Errorf("minLevel %d: want 0 to %d", r.MinLevel, maxLevel)
	}
	for _, v := range r.Verifiers {
		if v == "" || !printable(v) {
			return fmt.Errorf("verifier %q: want the exact id", clip(v))
		}
	}
	for _, d := range r.Policies {
		if err := checkDigest(d); err != nil {
			return fmt.Errorf("policy: %w", err)
		}
	}
	return c.signers(r.Signers)
}

// requirement is what the rule amounts to. A verifier is trusted for the time
// that he names, so no proven one is asked for.
func (r *SummaryRule) requirement() Requirement {
	return Requirement{PredicateType: PredicateSummary, Signers: r.Signers, Threshold: r.Threshold}
}

// summaryClauses are judged for summaries alone.
var summaryClauses = []statementClause{
	summaryClause("vsa.result",
		func(_ *judgement, s Summary) string {
			if s.Result == summaryPassed {
				return ""
			}
			return fmt.Sprintf("result %q", clip(s.Result))
		},
		func(*judgement) string { return "the result " + summaryPassed }),
	summaryClause("vsa.verifier",
		func(j *judgement, s Summary) string {
			return unless(j.rule.Summary.Verifiers, s.Verifier.ID, "verifier ")
		},
		func(j *judgement) string { return "a summary by " + strings.Join(j.rule.Summary.Verifiers, " or ") }),
	summaryClause("vsa.resource",
		func(j *judgement, s Summary) string { return unless([]string{j.repository}, s.Resource, "about ") },
		func(j *judgement) string { return "a summary about " + clip(j.repository) }),
	summaryClause("vsa.policy",
		func(j *judgement, s Summary) string {
			return unless(j.rule.Summary.Policies, digest.NewDigestFromEncoded(digest.SHA256, s.Policy.Digest["sha256"]), "judged under ")
		},
		func(j *judgement) string {
			return fmt.Sprintf("a summary under one of the policies %s", j.rule.Summary.Policies)
		}),
	summaryClause("vsa.level",
		func(j *judgement, s Summary) string {
			if s.level() >= j.rule.Summary.MinLevel {
				return ""
			}
			return fmt.Sprintf("level %d", s.level())
		},
		func(j *judgement) string {
			return fmt.Sprint("a summary that found ", levelPrefix, j.rule.Summary.MinLevel, " or higher")
		}),
	{
		name: "vsa.maxAge", applies: isSummary,
		judge: func(j *judgement, c *candidate) string {
			if age := j.in.Now.Sub(c.summary.Verified); age > j.rule.Summary.MaxAge || age < -maxClockSkew {
				return "judged " + c.summary.Verified.UTC().Format(time.RFC3339)
			}
			return ""
		},
		needs: func(j *judgement) string {
			return fmt.Sprintf("a summary no older than %s, or a correct clock", j.rule.Summary.MaxAge)
		},
		remark: " (asserted by signer)",
	},
}

func isSummary(j *judgement) bool { return j.requirement.PredicateType == PredicateSummary }

func summaryClause(name string, judge func(*judgement, Summary) string, needs func(*judgement) string) statementClause {
	return statementClause{
		name:    name,
		applies: isSummary,
		judge:   func(j *judgement, c *candidate) string { return judge(j, c.summary) },
		needs:   needs,
	}
}
