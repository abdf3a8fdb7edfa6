// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// TestK23AnEmittedSummaryIsAccepted by a policy that trusts the verifier, in
// place of the requirements that the verifier judged.
func TestK23AnEmittedSummaryIsAccepted(t *testing.T) {
	judged := wideScene(t)
	judged.in.Statements[0].Attestation = digest.FromString("release bundle")
	report := judged.policy.Evaluate(judged.in)
	st := must[provenance.Statement](t)(provenance.NewSummary(report, "https://gate.example.com/v1", "https://policies.example.com/team.json"))
	for _, want := range []string{`"SLSA_BUILD_LEVEL_2"`, report.Policy.Encoded(), digest.FromString("release bundle").Encoded(), `"PASSED"`} {
		if !strings.Contains(string(st.Predicate), want) {
			t.Errorf("%s lacks %s", st.Predicate, want)
		}
	}
	s := summaryScene(t)
	s.policy.Rules[0].Summary.Policies = []digest.Digest{report.Policy}
	s.in.Statements[0].Statement = st
	r := s.policy.Evaluate(s.in)
	if !r.Allowed || !r.Summary {
		t.Errorf("got %s", r)
	}
	if text := must[[]byte](t)(jsonOf(r)); !strings.Contains(string(text), "asserted by signer") {
		t.Error("the report does not say whose word the time of the summary is")
	}
}

// TestK23RequirementsStillDoWithoutASummary: a failed one takes nothing away.
func TestK23RequirementsStillDoWithoutASummary(t *testing.T) {
	s := summaryScene(t)
	s.in.Statements[0].Statement = summaryStatement(t, func(v *provenance.Summary) { v.Result = "FAILED" })
	s.in.Statements = append(s.in.Statements, verified(s.policy.Rules[0].Require[0].Signers[0], slsaStatement(t, nil)))
	if r := s.policy.Evaluate(s.in); !r.Allowed || r.Summary {
		t.Errorf("got %s", r)
	}
}

func TestSummariesAreOfPoliciesThatJudged(t *testing.T) {
	s := plainScene(t)
	allowed := s.policy.Evaluate(s.in)
	s.in.Statements = nil
	refused := s.policy.Evaluate(s.in)
	unsafe := provenance.UnsafeAcceptUnsigned("demo").Evaluate(s.in)
	for name, tt := range map[string]struct {
		report *provenance.Report
		id     string
	}{"nothing": {nil, "v"}, "a refusal": {refused, "v"}, "anything goes": {unsafe, "v"}, "nobody": {allowed, ""}} {
		if _, err := provenance.NewSummary(tt.report, tt.id, ""); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}
