// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// nearMisses are refused for the reason given and for no other.
var nearMisses = slices.Concat(basicMisses, sourceMisses, listMisses, summaryMisses)

type nearMiss struct {
	name    string
	clause  string // whose absence would let it pass
	refused string // labels of the clauses that do not hold
	scene   func(testing.TB) *scene
	spoil   func(testing.TB, *scene)
}

// of returns the scene with the one defect in it.
func (m nearMiss) of(t testing.TB) *scene {
	s := m.scene(t)
	m.spoil(t, s)
	if s.finish != nil {
		s.finish(t, s)
	}
	return s
}

// basicMisses are about the artifact, who signed, releases, and thresholds.
var basicMisses = []nearMiss{
	{"zero policy", "policy", "policy", plainScene, func(_ testing.TB, s *scene) { s.policy = provenance.Policy{} }},
	{"no rule for the repository", "rule", "rule", fullScene, func(_ testing.TB, s *scene) { s.in.Reference = "registry.example.com/other/llama" }},
	{"a layout on disk", "rule", "rule", fullScene, func(_ testing.TB, s *scene) { s.in.Reference = "oci:registry.example.com/team/llama" }},
	{"a path out of the pattern", "rule", "rule", fullScene, func(_ testing.TB, s *scene) { s.in.Reference = "registry.example.com/team/../other" }},
	{"the folder of a pattern", "rule", "rule", fullScene, func(_ testing.TB, s *scene) { s.in.Reference = "registry.example.com/team" }},
	{"no manifest digest", "manifest", "manifest", plainScene, func(_ testing.TB, s *scene) {
		s.in.Manifest, s.in.Statements[0].Subjects = "", []digest.Digest{""}
	}},
	{"no clock", "clock", "clock", plainScene, func(_ testing.TB, s *scene) { s.in.Now = time.Time{} }},
	{"policy expired", "policyExpiry", "policyExpiry", fullScene, func(_ testing.TB, s *scene) { s.policy.Expires = now }},
	{"no index", "index", "index", plainScene, func(_ testing.TB, s *scene) { s.in.IndexDigest, s.in.Profile = "", "" }},
	{"not encrypted", "encrypted", "encrypted", fullScene, func(t testing.TB, s *scene) {
		s.in.Profile = provenance.ProfilePlain
		s.changeReleases(t, func(r *provenance.Release) { r.Profile = provenance.ProfilePlain })
	}},
	{"layer digests not compared", "layerDigests", "layerDigests", fullScene, func(_ testing.TB, s *scene) { s.in.LayerDigestsCompared = false }},
	{"a predicate that may mean anything", "predicateType", "require[0].predicateType", plainScene, func(_ testing.TB, s *scene) {
		s.in.Statements[0].Statement.PredicateType = "https://example.com/scan/v1"
	}},
	{"about another artifact", "subject", "require[1].subject", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Subjects = []digest.Digest{digest.FromString("other")}
	}},
	{"about two artifacts", "subject", "require[1].subject", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Subjects = []digest.Digest{manifest, digest.FromString("other")}
	}},
	{"signed by a stranger", "signer", "require[0].signer", plainScene, func(t testing.TB, s *scene) {
		s.in.Statements[0].Signer = keyPrincipal(t, "signer")
	}},
	{"a workflow run for a fork", "signer", "require[1].signer", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Signer.SourceRepository = "https://github.com/evil/train"
	}},
	{"an account of the same name", "signer", "require[1].signer", fullScene, func(_ testing.TB, s *scene) { s.in.Statements[2].Signer.SourceOwnerID = "4243" }},
	{"a workflow run for a branch", "signer", "require[1].signer", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Signer.SourceRef = "refs/heads/feature"
	}},
	{"a workflow run for a pull request", "signer", "require[1].signer", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Signer.Trigger = "pull_request_target"
	}},
	{"another issuer vouches for the subject", "signer", "require[1].signer", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Signer.Issuer = "https://issuer.example.com"
	}},
	{"the subject with a suffix", "signer", "require[1].signer", fullScene, func(_ testing.TB, s *scene) { s.in.Statements[2].Signer.Subject += "-evil" }},
	{"provenance with a parameter of its own", "form", "require[1].form", fullScene, func(t testing.TB, s *scene) {
		predicate := strings.Replace(string(s.in.Statements[2].Statement.Predicate), `"method":"lora"`, `"method":"lora","trust":"me"`, 1)
		s.in.Statements[2].Statement.Predicate = []byte(predicate)
		s.policy.Rules[0].Require[1].Builders, s.policy.Rules[0].Require[1].Sources = nil, nil
	}},
	{"another model", "release.name", "require[0].release.name tag.release.name", fullScene, func(t testing.TB, s *scene) {
		s.changeReleases(t, func(r *provenance.Release) { r.Name = "team/other" })
	}},
	{"another tag", "release.tag", "require[0].release.tag tag.release.tag", fullScene, func(t testing.TB, s *scene) {
		s.changeReleases(t, func(r *provenance.Release) { r.Tags = []string{"v2"} })
	}},
	{"released under another profile", "release.profile", "require[0].release.profile tag.release.profile", fullScene, func(t testing.TB, s *scene) {
		s.changeReleases(t, func(r *provenance.Release) { r.Profile = provenance.ProfilePlain })
	}},
	{"released with another index", "release.indexDigest", "require[0].release.indexDigest tag.release.indexDigest", fullScene, func(t testing.TB, s *scene) {
		s.changeReleases(t, func(r *provenance.Release) { r.IndexDigest = digest.FromString("other") })
	}},
	{"release expired this second", "release.expiry", "require[0].release.expiry tag.release.expiry", fullScene, func(t testing.TB, s *scene) {
		s.changeReleases(t, func(r *provenance.Release) { r.Expires = now })
	}},
	{"an old release", "release.sequence", "require[0].release.sequence tag.release.sequence", fullScene, func(t testing.TB, s *scene) {
		s.changeReleases(t, func(r *provenance.Release) { r.Sequence = 9 })
	}},
	{"another builder", "slsa.builder", "require[1].slsa.builder", fullScene, func(t testing.TB, s *scene) {
		s.in.Statements[2].Statement = slsaStatement(t, func(b *provenance.Build) { b.Builder = builder + "/evil" })
	}},
	{"another source", "slsa.source", "require[1].slsa.source", fullScene, func(t testing.TB, s *scene) {
		s.in.Statements[2].Statement = slsaStatement(t, func(b *provenance.Build) { b.Dependencies[2].URI = source + "-evil@refs/heads/main" })
	}},
	{"signed too long ago", "maxAge", "require[1].maxAge", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Times = []time.Time{now.Add(-time.Minute), now.Add(-25 * time.Hour)}
	}},
	{"signed in the future", "time", "require[1].time", fullScene, func(_ testing.TB, s *scene) {
		s.in.Statements[2].Times = []time.Time{now.Add(time.Hour)}
	}},
	{"no trusted time", "maxAge", "require[1].maxAge", fullScene, func(_ testing.TB, s *scene) { s.in.Statements[2].Times = nil }},
	{"not logged", "logEntries", "require[1].logEntries", fullScene, func(_ testing.TB, s *scene) { s.in.Statements[2].LogEntries = 0 }},
	{"not stamped", "timestamps", "require[1].timestamps", fullScene, func(_ testing.TB, s *scene) { s.in.Statements[2].Timestamps = 0 }},
	{"one of two signers", "threshold", "require[0].threshold", fullScene, func(_ testing.TB, s *scene) { s.in.Statements = s.in.Statements[1:] }},
	{"one signer twice", "threshold", "require[0].threshold", fullScene, func(_ testing.TB, s *scene) { s.in.Statements[0].Signer = s.in.Statements[1].Signer }},
	{"tag without a release", "tag", "tag.predicateType", plainScene, func(_ testing.TB, s *scene) { s.in.Tag = "v3" }},
	{"sequence without a release", "minSequence", "minSequence.predicateType", plainScene, func(_ testing.TB, s *scene) { s.policy.Rules[0].MinSequence = 5 }},
	{"nothing signed", "predicateType", "require[0].predicateType", plainScene, func(_ testing.TB, s *scene) { s.in.Statements = nil }},
}
