// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// scene is a policy and evidence that meets it, to be spoiled in one place.
type scene struct {
	policy provenance.Policy
	in     provenance.Evidence
	// finish makes what depends on the rest. Nil: nothing does.
	finish func(testing.TB, *scene)
}

// fullScene uses every clause that can hold at once: two releases, and
// provenance by an identity.
func fullScene(t testing.TB) *scene {
	first, second, ci := keyPrincipal(t, "first"), keyPrincipal(t, "second"), workflowPrincipal()
	s := &scene{
		policy: provenance.Policy{Expires: now.Add(time.Hour), Rules: []provenance.Rule{{
			Repositories: []string{"registry.example.com/team/*"}, Encrypted: true, MinSequence: 10, CompareLayerDigests: true,
			Require: []provenance.Requirement{
				{PredicateType: provenance.PredicateRelease, Signers: []provenance.Principal{first, second}, Threshold: 2},
				{PredicateType: provenance.PredicateSLSA, Signers: []provenance.Principal{ci}, Builders: []string{builder}, Sources: []string{source},
					MaxAge: 24 * time.Hour, MinLogEntries: 1, MinTimestamps: 1},
			},
		}}},
		in: provenance.Evidence{Reference: repository, Tag: "v3", Manifest: manifest, Profile: provenance.ProfileEncrypted, IndexDigest: index,
			Now: now, LayerDigestsCompared: true,
			Statements: []provenance.Verified{
				verified(first, releaseStatement(t, nil)),
				verified(second, releaseStatement(t, nil)),
				verified(ci, slsaStatement(t, nil)),
			}},
	}
	s.in.Statements[2].Times = []time.Time{now.Add(-time.Hour)}
	s.in.Statements[2].LogEntries, s.in.Statements[2].Timestamps = 1, 1
	return s
}

// plainScene is the least that passes: a cosign signature and a digest.
func plainScene(t testing.TB) *scene {
	signer := keyPrincipal(t, "signer")
	return &scene{
		policy: provenance.Policy{Rules: []provenance.Rule{{Repositories: []string{"*"},
			Require: []provenance.Requirement{{PredicateType: provenance.PredicateCosignSign, Signers: []provenance.Principal{signer}}}}}},
		in: provenance.Evidence{Reference: repository, Manifest: manifest, Profile: provenance.ProfilePlain, IndexDigest: index, Now: now,
			Statements: []provenance.Verified{verified(signer, cosignStatement())}},
	}
}

func (s *scene) changeReleases(t testing.TB, change func(*provenance.Release)) {
	for i := range 2 {
		s.in.Statements[i].Statement = releaseStatement(t, change)
	}
}

const (
	baseRepository = "registry.example.com/base/llama"
	otherBuilder   = "https://builders.example.com/gpu/v2"
)

var (
	root      = digest.FromString("plaintext root")
	baseModel = digest.FromString("base")
)

// wideScene uses what fullScene does not: denial lists, the table of builders,
// sources, parameters, materials and a plaintext.
func wideScene(t testing.TB) *scene {
	first, ci, base, security := keyPrincipal(t, "first"), workflowPrincipal(), keyPrincipal(t, "base"), keyPrincipal(t, "security")
	first.NotBefore, first.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
	s := &scene{
		policy: provenance.Policy{
			Builders: []provenance.BuilderLevel{{ID: builder, Signers: []provenance.Principal{ci}, Level: 2}, {ID: otherBuilder, Signers: []provenance.Principal{first}, Level: 1}},
			Denials:  []provenance.DenialSource{{Name: "acme", Signers: []provenance.Principal{security}, MinSequence: 5, MaxAge: 48 * time.Hour}},
			Lineage:  provenance.Lineage{Repositories: []string{"registry.example.com/base/*"}},
			Rules: []provenance.Rule{{
				Repositories: []string{"registry.example.com/team/*"},
				Plaintext:    &provenance.PlaintextRule{Signers: []provenance.Principal{first}, Compare: true},
				Require: []provenance.Requirement{
					{PredicateType: provenance.PredicateRelease, Signers: []provenance.Principal{first}},
					{PredicateType: provenance.PredicateSLSA, Signers: []provenance.Principal{ci}, MinLevel: 2, MinSCTs: 1,
						BuildTypes: []string{provenance.BuildTypeFineTune}, Sources: []string{source}, SourceRefs: []string{"refs/heads/main", "refs/tags/*"},
						SourceDigests: []string{digest.FromString("code").String()}, Parameters: tuning(),
						Materials: []provenance.MaterialRule{
							{Role: provenance.RoleBase, Required: []provenance.MaterialMatch{{URI: baseRepository, Digest: baseModel}},
								Allowed: []provenance.MaterialMatch{{URI: "registry.example.com/base/*"}}, Verified: true},
							{Role: provenance.RoleDataset, Denied: []provenance.MaterialMatch{{URI: "https://data.example.com/leaked/*"}}},
						}},
				},
			}, {
				Repositories: []string{baseRepository},
				Plaintext:    &provenance.PlaintextRule{Signers: []provenance.Principal{base}},
				Require:      []provenance.Requirement{{PredicateType: provenance.PredicateCosignSign, Signers: []provenance.Principal{base}}},
			}},
		},
		in: provenance.Evidence{Reference: repository, Tag: "v3", Manifest: manifest, Profile: provenance.ProfileEncrypted, IndexDigest: index,
			Now: now, PlaintextCompared: true,
			Statements: []provenance.Verified{
				verified(first, releaseStatement(t, nil)),
				verified(ci, slsaStatement(t, nil)),
				verified(first, plaintextStatement(t, root)),
			},
			Denials: []provenance.Verified{listed(t, security, nil)},
		},
		finish: judgeBase,
	}
	s.in.Statements[1].Times, s.in.Statements[1].SCTs = []time.Time{now.Add(-time.Hour)}, 1
	judgeBase(t, s)
	return s
}

// judgeBase reports on the base model as the policy stands now.
func judgeBase(t testing.TB, s *scene) {
	if s.in.Materials != nil && s.in.Materials[0].Problem != "" {
		return
	}
	if len(s.policy.Rules) < 2 {
		return
	}
	signer := s.policy.Rules[1].Require[0].Signers[0]
	in := provenance.Evidence{Reference: baseRepository, Manifest: baseModel, Profile: provenance.ProfilePlain, IndexDigest: index, Now: now, Denials: s.in.Denials}
	for _, st := range []provenance.Statement{cosignStatement(), plaintextStatement(t, digest.FromString("base root"))} {
		v := verified(signer, st)
		v.Subjects = []digest.Digest{baseModel}
		in.Statements = append(in.Statements, v)
	}
	s.in.Materials = []provenance.MaterialReport{{Repository: baseRepository, Manifest: baseModel, Report: s.policy.Evaluate(in)}}
}

// tuning is the schema of the parameters that build makes.
func tuning() *provenance.Schema {
	return &provenance.Schema{Members: map[string]provenance.Schema{
		"method": {Values: []any{"lora", "full"}},
		"source": {Values: []any{source}},
		"seed":   {Values: []any{float64(1), float64(7)}, Optional: true},
		"config": {Any: true, Optional: true},
	}}
}

func plaintextStatement(t testing.TB, root digest.Digest) provenance.Statement {
	t.Helper()
	return must[provenance.Statement](t)(provenance.NewPlaintext(provenance.Plaintext{Root: root}))
}

// denialList holds one entry of each kind, about nothing in the scenes.
func denialList() provenance.DenialList {
	return provenance.DenialList{Name: "acme", Sequence: 7, Issued: now.Add(-24 * time.Hour), Expires: now.Add(24 * time.Hour),
		Entries: []provenance.Denial{
			{Digest: digest.FromString("elsewhere")}, {Plaintext: digest.FromString("elsewhere")}, {Name: "team/elsewhere", From: 0, To: 99},
			{Key: digest.FromString("elsewhere").Encoded()}, {Issuer: issuer, Subject: "elsewhere@example.com", Since: now.Add(-time.Hour)},
			{Builder: "https://elsewhere.example.com"},
		}}
}

func listed(t testing.TB, signer provenance.Principal, change func(*provenance.DenialList)) provenance.Verified {
	t.Helper()
	l := denialList()
	if change != nil {
		change(&l)
	}
	v := verified(signer, must[provenance.Statement](t)(provenance.NewDenials(l)))
	v.Subjects = []digest.Digest{l.Subject()}
	return v
}

// deny adds an entry to the list of the scene.
func (s *scene) deny(t testing.TB, d provenance.Denial) {
	d.Reason = "it leaked"
	s.in.Denials[0] = listed(t, s.in.Denials[0].Signer, func(l *provenance.DenialList) { l.Entries = append(l.Entries, d) })
}

// summaryScene is admitted on the word of a verifier alone.
func summaryScene(t testing.TB) *scene {
	first, gate := keyPrincipal(t, "first"), keyPrincipal(t, "gate")
	return &scene{
		policy: provenance.Policy{Rules: []provenance.Rule{{
			Repositories: []string{repository},
			Summary: &provenance.SummaryRule{Signers: []provenance.Principal{gate}, Verifiers: []string{"https://gate.example.com/v1"},
				Policies: []digest.Digest{digest.FromString("policy")}, MaxAge: time.Hour, MinLevel: 2},
			Require: []provenance.Requirement{{PredicateType: provenance.PredicateSLSA, Signers: []provenance.Principal{first}}},
		}}},
		in: provenance.Evidence{Reference: repository, Manifest: manifest, Profile: provenance.ProfilePlain, IndexDigest: index, Now: now,
			Statements: []provenance.Verified{verified(gate, summaryStatement(t, nil))}},
	}
}

func summaryStatement(t testing.TB, change func(*provenance.Summary)) provenance.Statement {
	t.Helper()
	s := provenance.Summary{Verifier: provenance.SummaryVerifier{ID: "https://gate.example.com/v1"}, Verified: now.Add(-time.Minute), Resource: repository,
		Policy: provenance.ResourceDescriptor{Digest: map[string]string{"sha256": digest.FromString("policy").Encoded()}},
		Result: "PASSED", Levels: []string{"SLSA_BUILD_LEVEL_2", "SLSA_SOURCE_LEVEL_1"}}
	if change != nil {
		change(&s)
	}
	return provenance.Statement{PredicateType: provenance.PredicateSummary, Predicate: must[[]byte](t)(jsonOf(s))}
}
