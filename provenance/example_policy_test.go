// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// policyExamples are those of POLICY.md §10, by title.
func policyExamples(t testing.TB) map[string]provenance.Policy {
	t.Helper()
	text := string(must[[]byte](t)(os.ReadFile("../docs/POLICY.md")))
	out := make(map[string]provenance.Policy)
	for _, m := range regexp.MustCompile("(?s)\n### 10\\.\\d+ ([^\n]+)\n.*?```json\n(.*?)\n```").FindAllStringSubmatch(text, -1) {
		p, err := provenance.ParsePolicy([]byte(m[2]))
		if err != nil {
			t.Errorf("%s: %v", m[1], err)
		}
		out[m[1]] = p
	}
	return out
}

// named finds a principal of a policy.
func named(t testing.TB, p provenance.Policy, name string) provenance.Principal {
	t.Helper()
	var all []provenance.Principal
	for _, r := range p.Rules {
		for _, q := range r.Require {
			all = append(all, q.Signers...)
		}
		if r.Plaintext != nil {
			all = append(all, r.Plaintext.Signers...)
		}
		if r.Summary != nil {
			all = append(all, r.Summary.Signers...)
		}
	}
	for _, d := range p.Denials {
		all = append(all, d.Signers...)
	}
	for _, a := range all {
		if a.Name == name {
			return a
		}
	}
	t.Fatalf("no principal %q", name)
	return provenance.Principal{}
}

// exampleEvidence is what each example admits: take any one statement away, and
// it refuses.
var exampleEvidence = map[string]func(t testing.TB, p provenance.Policy, in *provenance.Evidence){
	"A team and its key": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Tag = "v3"
		in.Statements = []provenance.Verified{verified(named(t, p, "release"), releaseStatement(t, nil))}
	},
	"A GitHub workflow": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Reference = "ghcr.io/acme/llama"
		v := verified(named(t, p, "ci"), provenance.Statement{PredicateType: provenance.PredicateSLSA, Predicate: []byte(`{
			"buildDefinition": {"buildType": "https://actions.github.io/buildtypes/workflow/v1",
				"externalParameters": {"workflow": {"ref": "refs/heads/main", "repository": "https://github.com/acme/train", "path": ".github/workflows/train.yml"}},
				"resolvedDependencies": [{"uri": "git+https://github.com/acme/train@refs/heads/main", "digest": {"gitCommit": "0123456789012345678901234567890123456789"}}]},
			"runDetails": {"builder": {"id": "https://github.com/actions/runner/github-hosted"}}}`)})
		v.LogEntries, v.Times = 1, []time.Time{now.Add(-time.Hour)}
		in.Statements = []provenance.Verified{v}
	},
	"A two-person release": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Tag = "v3"
		in.Statements = []provenance.Verified{verified(named(t, p, "ana"), releaseStatement(t, nil)), verified(named(t, p, "eva"), releaseStatement(t, nil)),
			verified(named(t, p, "ci"), slsaStatement(t, nil))}
	},
	"A vendor's key": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Reference, in.Tag = "registry.example.com/vendors/brightmind/mirror", "v3"
		in.Statements = []provenance.Verified{verified(named(t, p, "vendor"), releaseStatement(t, func(r *provenance.Release) { r.Name = "brightmind/reasoner" }))}
	},
	"A base model allow list": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Statements = []provenance.Verified{verified(named(t, p, "release"), slsaStatement(t, func(b *provenance.Build) {
			b.Dependencies[0].Digest = digest.Digest("sha256:" + strings.Repeat("1", 64))
		}))}
	},
	"An air-gapped site": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Reference, in.Tag = "registry.site.internal/team/llama", "v3"
		in.Statements = []provenance.Verified{verified(named(t, p, "release"), releaseStatement(t, nil))}
		in.Denials = []provenance.Verified{listed(t, named(t, p, "security"), func(l *provenance.DenialList) { l.Entries = nil })}
	},
	"Tags of a reusable workflow": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Reference = "registry.example.com/product/llama"
		signer := named(t, p, "platform")
		signer.Subject, signer.SourceRef = strings.Replace(signer.Subject, "*", "v2.1", 1), "refs/tags/v7"
		v := verified(signer, slsaStatement(t, func(b *provenance.Build) {
			b.Builder = "https://github.com/acme/platform/builders/gpu/v1"
			b.Dependencies[2].URI = "git+https://github.com/acme/product@refs/tags/v7"
		}))
		v.Timestamps, v.Times = 1, []time.Time{now.Add(-time.Hour)}
		in.Statements = []provenance.Verified{v}
	},
	"Revocation that survives re-encryption": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Tag = "v3"
		in.Statements = []provenance.Verified{verified(named(t, p, "release"), releaseStatement(t, nil)), verified(named(t, p, "release"), plaintextStatement(t, root))}
		in.Denials = []provenance.Verified{listed(t, named(t, p, "security"), nil)}
	},
	"A fleet behind a gate": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Statements = []provenance.Verified{verified(named(t, p, "gate"), summaryStatement(t, func(s *provenance.Summary) {
			s.Policy.Digest["sha256"] = strings.Repeat("3", 64)
		}))}
	},
	"Builder and publisher apart": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		in.Tag = "v3"
		built := verified(named(t, p, "builder"), slsaStatement(t, nil))
		built.Subjects = []digest.Digest{root}
		in.Statements = []provenance.Verified{verified(named(t, p, "publisher"), releaseStatement(t, nil)), verified(named(t, p, "publisher"), plaintextStatement(t, root)), built}
		in.PlaintextCompared = true
	},
	"A lineage that is verified": func(t testing.TB, p provenance.Policy, in *provenance.Evidence) {
		data := digest.FromString("data")
		in.Statements = []provenance.Verified{verified(named(t, p, "release"), slsaStatement(t, func(b *provenance.Build) {
			b.Dependencies[1].URI = "registry.example.com/datasets/mail"
		}))}
		for repository, d := range map[string]digest.Digest{baseRepository: baseModel, "registry.example.com/datasets/mail": data} {
			v := verified(named(t, p, "data"), cosignStatement())
			v.Subjects = []digest.Digest{d}
			in.Materials = append(in.Materials, provenance.MaterialReport{Repository: repository, Manifest: d, Report: p.Evaluate(provenance.Evidence{
				Reference: repository, Manifest: d, Profile: provenance.ProfilePlain, IndexDigest: index, Now: now, Statements: []provenance.Verified{v}})})
		}
	},
}

// TestPolicyExamplesAdmitAndRefuse exercises POLICY.md §10.
func TestPolicyExamplesAdmitAndRefuse(t *testing.T) {
	examples := policyExamples(t)
	if len(examples) < 10 || len(examples) != len(exampleEvidence) {
		t.Fatalf("%d examples and evidence for %d", len(examples), len(exampleEvidence))
	}
	for title, p := range examples {
		t.Run(title, func(t *testing.T) {
			gather, ok := exampleEvidence[title]
			if !ok {
				t.Fatal("nothing shows what the example admits")
			}
			in := provenance.Evidence{Reference: repository, Manifest: manifest, Profile: provenance.ProfileEncrypted, IndexDigest: index, Now: now}
			gather(t, p, &in)
			if r := p.Evaluate(in); !r.Allowed {
				t.Fatal(r)
			}
			refuses := func(what string, less provenance.Evidence) {
				if p.Evaluate(less).Allowed {
					t.Errorf("still admitted %s", what)
				}
			}
			for i, v := range in.Statements {
				less := in
				less.Statements = append(append([]provenance.Verified{}, in.Statements[:i]...), in.Statements[i+1:]...)
				refuses("without the "+v.Statement.PredicateType+" of "+v.Signer.Name, less)
			}
			if in.Denials != nil {
				less := in
				less.Denials = nil
				refuses("without a denial list", less)
			}
			for i := range in.Materials {
				less := in
				less.Materials = in.Materials[i : i+1]
				refuses("without one of its materials", less)
			}
			elsewhere := in
			elsewhere.Reference = "docker.example.org/other/llama"
			refuses("elsewhere", elsewhere)
		})
	}
}
