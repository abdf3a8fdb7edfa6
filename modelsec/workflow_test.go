// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// certified proves what one key signed, as if a certificate said who that was.
type certified struct {
	provenance.Verifier
	facts provenance.Verified
}

func (c certified) Verify(ctx context.Context, b *provenance.Bundle) (*provenance.Verified, error) {
	v, err := c.Verifier.Verify(ctx, b)
	if err != nil {
		return nil, err
	}
	facts := c.facts
	facts.Statement, facts.Subjects = v.Statement, v.Subjects
	return &facts, nil
}

// workflowPolicy wants a release by one workflow, logged, stamped and young.
func workflowPolicy() (provenance.Policy, provenance.Verified) {
	ci := provenance.Principal{Name: "ci", Issuer: "https://token.actions.githubusercontent.com",
		Subject:          "https://github.com/acme/train/.github/workflows/train.yml@refs/tags/*",
		SourceRepository: "https://github.com/acme/train", SourceOwnerID: "4242", SourceRef: "refs/tags/*", Trigger: "push",
		RunnerEnvironment: "github-hosted"}
	policy := provenance.Policy{Rules: []provenance.Rule{{Repositories: []string{"registry.example.com/team/*"},
		Require: []provenance.Requirement{{PredicateType: provenance.PredicateRelease, Signers: []provenance.Principal{ci},
			MaxAge: time.Hour, MinLogEntries: 1, MinTimestamps: 1, MinSCTs: 1}}}}}
	signer := ci
	signer.Name, signer.Subject, signer.SourceRef = "", "https://github.com/acme/train/.github/workflows/train.yml@refs/tags/v3", "refs/tags/v3"
	return policy, provenance.Verified{Signer: signer, Times: []time.Time{now.Add(-time.Minute)}, LogEntries: 1, Timestamps: 1, SCTs: 1}
}

// TestCertificatesThatNearlyFitAreRefused changes one fact of a certificate at a
// time.
func TestCertificatesThatNearlyFitAreRefused(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(nil))
	policy, facts := workflowPolicy()
	verify := func(facts provenance.Verified) error {
		c := &modelsec.Client{Registry: memory, Now: func() time.Time { return now },
			Verifiers: []provenance.Verifier{certified{provenance.KeyVerifier(p.key.Public()), facts}}}
		_, err := c.Verify(t.Context(), tagged, policy)
		return err
	}
	if err := verify(facts); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spoil func(*provenance.Verified)
		word  string
	}{
		"another issuer": {func(v *provenance.Verified) { v.Signer.Issuer += "/acme" }, "signer"},
		"no issuer":      {func(v *provenance.Verified) { v.Signer.Issuer = "" }, "signer"},
		"another workflow": {func(v *provenance.Verified) {
			v.Signer.Subject = "https://github.com/acme/train/.github/workflows/evil.yml@refs/tags/v3"
		}, "signer"},
		"a workflow at a branch": {func(v *provenance.Verified) {
			v.Signer.Subject = "https://github.com/acme/train/.github/workflows/train.yml@refs/heads/v3"
		}, "signer"},
		"a workflow of another": {func(v *provenance.Verified) {
			v.Signer.Subject = "https://github.com/evil-acme/train/.github/workflows/train.yml@refs/tags/v3"
		}, "signer"},
		"run for another":          {func(v *provenance.Verified) { v.Signer.SourceRepository = "https://github.com/acme/train-fork" }, "signer"},
		"an account of the name":   {func(v *provenance.Verified) { v.Signer.SourceOwnerID = "42424" }, "signer"},
		"run for a branch":         {func(v *provenance.Verified) { v.Signer.SourceRef = "refs/heads/main" }, "signer"},
		"run for no ref":           {func(v *provenance.Verified) { v.Signer.SourceRef = "" }, "signer"},
		"run for a pull request":   {func(v *provenance.Verified) { v.Signer.Trigger = "pull_request" }, "signer"},
		"run on a machine of ours": {func(v *provenance.Verified) { v.Signer.RunnerEnvironment = "self-hosted" }, "signer"},
		"a key instead":            {func(v *provenance.Verified) { v.Signer = p.principal(t) }, "signer"},
		"not logged":               {func(v *provenance.Verified) { v.LogEntries = 0 }, "logEntries"},
		"not stamped":              {func(v *provenance.Verified) { v.Timestamps = 0 }, "timestamps"},
		"not in a certificate log": {func(v *provenance.Verified) { v.SCTs = 0 }, "scts"},
		"no time":                  {func(v *provenance.Verified) { v.Times = nil }, "maxAge"},
		"too old":                  {func(v *provenance.Verified) { v.Times = []time.Time{now, now.Add(-2 * time.Hour)} }, "maxAge"},
		"ahead of the clock":       {func(v *provenance.Verified) { v.Times = []time.Time{now.Add(48 * time.Hour)} }, "ahead of the clock"},
	} {
		t.Run(name, func(t *testing.T) {
			near := facts
			tt.spoil(&near)
			err := verify(near)
			refused(t, err, errPolicy)
			contains(t, err, tt.word)
		})
	}
}
