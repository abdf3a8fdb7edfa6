// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// rebuild changes the provenance of wideScene.
func (s *scene) rebuild(t testing.TB, change func(*provenance.Build)) {
	s.in.Statements[1].Statement = slsaStatement(t, change)
}

// edit replaces one piece of the predicate of a statement.
func (s *scene) edit(t testing.TB, statement int, from, to string) {
	t.Helper()
	predicate := string(s.in.Statements[statement].Statement.Predicate)
	if strings.Count(predicate, from) != 1 {
		t.Fatalf("%q is not in %s once", from, predicate)
	}
	s.in.Statements[statement].Statement.Predicate = []byte(strings.Replace(predicate, from, to, 1))
}

// sourceMisses are about who built, from what, and how.
var sourceMisses = []nearMiss{
	{"a key that no longer signs", "validity", "plaintext.validity require[0].validity tag.validity", wideScene, func(_ testing.TB, s *scene) {
		s.restrict(func(p *provenance.Principal) { p.NotAfter = now })
	}},
	{"a key that does not sign yet", "validity", "plaintext.validity require[0].validity tag.validity", wideScene, func(_ testing.TB, s *scene) {
		s.restrict(func(p *provenance.Principal) { p.NotBefore = now.Add(time.Second) })
	}},
	{"signed before the identity might", "validity", "require[1].validity", wideScene, func(_ testing.TB, s *scene) {
		for _, list := range [][]provenance.Principal{s.policy.Rules[0].Require[1].Signers, s.policy.Builders[0].Signers} {
			list[0].NotBefore = now.Add(-time.Minute)
		}
	}},
	{"a clock that lags two days", "time", "require[1].time", wideScene, func(_ testing.TB, s *scene) {
		s.in.Statements[1].Times = []time.Time{now.Add(48 * time.Hour)}
	}},
	{"a builder whom another signs for", "slsa.builderSigner", "require[1].slsa.builderSigner", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Builder = otherBuilder })
		s.policy.Rules[0].Require[1].MinLevel = 0
	}},
	{"a builder below the level", "slsa.level", "require[1].slsa.level", wideScene, func(_ testing.TB, s *scene) { s.policy.Builders[0].Level = 1 }},
	{"a builder without a level", "slsa.level", "require[1].slsa.level", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Builder = "https://builders.example.com/unknown" })
	}},
	{"a level that provenance claims for itself", "slsa.level", "require[1].slsa.level", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Builder = "https://builders.example.com/SLSA_BUILD_LEVEL_3" })
	}},
	{"another build type", "slsa.buildType", "require[1].slsa.buildType", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].BuildTypes = []string{provenance.BuildTypeTrain}
	}},
	{"a parameter of another value", "slsa.parameters", "require[1].slsa.parameters", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Parameters = provenance.FineTune{Method: "lora-evil", Source: source} })
	}},
	{"a parameter of another type", "slsa.parameters", "require[1].slsa.parameters", wideScene, func(t testing.TB, s *scene) {
		seed := int64(2)
		s.rebuild(t, func(b *provenance.Build) {
			b.Parameters = provenance.FineTune{Method: "lora", Source: source, Seed: &seed}
		})
	}},
	{"a parameter that the schema does not name", "slsa.parameters", "require[1].slsa.parameters", wideScene, func(_ testing.TB, s *scene) {
		delete(s.policy.Rules[0].Require[1].Parameters.Members, "method")
	}},
	{"a parameter that is missing", "slsa.parameters", "require[1].slsa.parameters", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Parameters.Members["epochs"] = provenance.Schema{Any: true}
	}},
	{"a source of one letter more", "slsa.source", "require[1].slsa.source", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[2].URI = source + "s@refs/heads/main" })
	}},
	{"a branch of the source", "slsa.sourceRef", "require[1].slsa.sourceRef", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[2].URI = source + "@refs/heads/main2" })
	}},
	{"a source without a ref", "slsa.sourceRef", "require[1].slsa.sourceRef", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[2].URI = source })
	}},
	{"a ref that only begins like a tag", "slsa.sourceRef", "require[1].slsa.sourceRef", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[2].URI = source + "@refs/tags/" })
	}},
	{"the right ref beside the one used", "slsa.sourceRef", "require[1].slsa.sourceRef", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) {
			used := b.Dependencies[2]
			used.URI = source + "@refs/heads/evil"
			b.Dependencies = append(b.Dependencies, used)
		})
	}},
	{"another commit of the source", "slsa.sourceDigest", "require[1].slsa.sourceDigest", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[2].Digest = digest.FromString("evil") })
	}},
	{"a commit under another algorithm", "slsa.sourceDigest", "require[1].slsa.sourceDigest", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].SourceDigests = []string{"gitCommit:" + digest.FromString("code").Encoded()}
	}},
	{"another version of the base model", "materials.required", "require[1].materials.required", wideScene, func(t testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Materials[0].Required[0].Digest = digest.FromString("newer")
	}},
	{"a base model with the wrong role", "materials.required", "require[1].materials.required", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Materials[0] = provenance.MaterialRule{Role: provenance.RoleAdapter, Required: []provenance.MaterialMatch{{Digest: baseModel}}}
	}},
	{"a base model of another maker", "materials.allowed", "require[1].materials.allowed", wideScene, func(t testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Materials[0] = provenance.MaterialRule{Role: provenance.RoleBase, Allowed: []provenance.MaterialMatch{{URI: "registry.example.com/base"}}}
	}},
	{"a second base model", "materials.allowed", "require[1].materials.allowed", wideScene, func(t testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Materials[0].Verified = false
		s.rebuild(t, func(b *provenance.Build) {
			b.Dependencies = append(b.Dependencies, provenance.Dependency{URI: "registry.example.com/bases/evil", Digest: digest.FromString("evil"), Role: provenance.RoleBase})
		})
	}},
	{"a denied dataset", "materials.denied", "require[1].materials.denied", wideScene, func(t testing.TB, s *scene) {
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[1].URI = "https://data.example.com/leaked/mail" })
	}},
	{"a denied dataset under another name", "materials.denied", "require[1].materials.denied", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Materials[1].Denied = []provenance.MaterialMatch{{Digest: digest.FromString("data")}}
	}},
	{"a base model that was not looked at", "materials.verified", "require[1].materials.verified", wideScene, func(_ testing.TB, s *scene) {
		s.in.Materials, s.finish = nil, nil
	}},
	{"a base model that cannot be reached", "materials.verified", "require[1].materials.verified", wideScene, func(_ testing.TB, s *scene) {
		s.in.Materials[0].Report, s.in.Materials[0].Problem = nil, "not found"
	}},
	{"a base model that its rule refuses", "materials.verified", "require[1].materials.verified", wideScene, func(t testing.TB, s *scene) {
		s.finish = func(t testing.TB, s *scene) {
			judgeBase(t, s)
			s.in.Materials[0].Report = s.policy.Evaluate(provenance.Evidence{Reference: baseRepository, Manifest: baseModel, IndexDigest: index, Now: now, Denials: s.in.Denials})
		}
	}},
	{"a base model that another policy allows", "materials.verified", "require[1].materials.verified", wideScene, func(t testing.TB, s *scene) {
		s.finish = func(t testing.TB, s *scene) {
			judgeBase(t, s)
			s.in.Materials[0].Report.Policy = digest.FromString("lenient")
		}
	}},
	{"the report of another artifact", "materials.verified", "require[1].materials.verified", wideScene, func(t testing.TB, s *scene) {
		s.finish = func(t testing.TB, s *scene) {
			judgeBase(t, s)
			s.in.Materials[0].Report.Manifest = manifest
		}
	}},
	{"a base model from where nothing is followed", "materials.verified", "require[1].materials.verified", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Lineage.Repositories = []string{"registry.example.com/bases/*"}
	}},
	{"a base model that is no artifact", "materials.verified", "require[1].materials.verified", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Materials[1].Verified = true
	}},
	{"no certificate timestamp", "scts", "require[1].scts", wideScene, func(_ testing.TB, s *scene) { s.in.Statements[1].SCTs = 0 }},
	{"content not compared with its root", "plaintextCompared", "plaintextCompared", wideScene, func(_ testing.TB, s *scene) { s.in.PlaintextCompared = false }},
	{"a plaintext bound by a stranger", "signer", "plaintext.signer", wideScene, func(t testing.TB, s *scene) {
		s.in.Statements[2].Signer = keyPrincipal(t, "stranger")
	}},
	{"a plaintext of another artifact", "subject", "plaintext.subject", wideScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Subjects = []digest.Digest{baseModel}
	}},
	{"a plaintext statement with a member of its own", "form", "plaintext.form", wideScene, func(t testing.TB, s *scene) {
		s.edit(t, 2, `{"root"`, `{"trust":"me","root"`)
	}},
	{"provenance of another plaintext", "subject", "require[1].subject", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Plaintext = true
		s.in.Statements[1].Subjects = []digest.Digest{digest.FromString("another root")}
	}},
	{"provenance of the ciphertext where the plaintext is asked for", "subject", "require[1].subject", wideScene, func(_ testing.TB, s *scene) {
		s.policy.Rules[0].Require[1].Plaintext = true
	}},
	{"provenance of the plaintext where the ciphertext is asked for", "subject", "require[1].subject", wideScene, func(_ testing.TB, s *scene) {
		s.in.Statements[1].Subjects = []digest.Digest{root}
	}},
	{"a workflow on a machine of its own", "signer", "require[1].signer", wideScene, func(_ testing.TB, s *scene) {
		for _, list := range [][]provenance.Principal{s.policy.Rules[0].Require[1].Signers, s.policy.Builders[0].Signers} {
			list[0].RunnerEnvironment = "github-hosted"
		}
		s.in.Statements[1].Signer.RunnerEnvironment = "self-hosted"
	}},
	{"a workflow at a branch where tags are asked for", "signer", "require[1].signer", wideScene, func(_ testing.TB, s *scene) {
		for _, list := range [][]provenance.Principal{s.policy.Rules[0].Require[1].Signers, s.policy.Builders[0].Signers} {
			list[0].Subject, list[0].SourceRef = strings.Replace(workflow, "refs/heads/main", "refs/tags/*", 1), "refs/tags/*"
		}
	}},
	{"an identity of a longer domain", "signer", "require[0].signer", func(t testing.TB) *scene {
		s := plainScene(t)
		s.policy.Rules[0].Require[0].Signers = []provenance.Principal{{Issuer: issuer, Subject: "release@acme.example"}}
		s.in.Statements[0].Signer = provenance.Principal{Issuer: issuer, Subject: "release@acme.example"}
		return s
	}, func(_ testing.TB, s *scene) { s.in.Statements[0].Signer.Subject = "release@evil-acme.example" }},
}

// restrict changes what the policy says of the key that releases.
func (s *scene) restrict(change func(*provenance.Principal)) {
	r := &s.policy.Rules[0]
	for _, list := range [][]provenance.Principal{r.Plaintext.Signers, r.Require[0].Signers, s.policy.Builders[1].Signers} {
		change(&list[0])
	}
}
