// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// listMisses are about denial lists.
var listMisses = []nearMiss{
	{"no denial list", "denials.current", "denials.current", wideScene, func(_ testing.TB, s *scene) { s.relist(func() { s.in.Denials = nil }) }},
	{"a denial list of another name", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		s.reissue(t, func(l *provenance.DenialList) { l.Name = "acme2" })
	}},
	{"a denial list signed by a stranger", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		s.relist(func() { s.in.Denials[0].Signer = keyPrincipal(t, "stranger") })
	}},
	{"a denial list signed by the publisher", "denials.current", "denials.current", wideScene, func(_ testing.TB, s *scene) {
		s.relist(func() { s.in.Denials[0].Signer = s.in.Statements[0].Signer })
	}},
	{"a denial list about an artifact", "denials.current", "denials.current", wideScene, func(_ testing.TB, s *scene) {
		s.relist(func() { s.in.Denials[0].Subjects = []digest.Digest{manifest} })
	}},
	{"a denial list with a member of its own", "denials.current", "denials.current", wideScene, func(_ testing.TB, s *scene) {
		s.relist(func() { s.in.Denials[0].Statement.Predicate = []byte(`{"except":"me"}`) })
	}},
	{"a stale denial list", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		s.reissue(t, func(l *provenance.DenialList) { l.Expires = now })
	}},
	{"a denial list issued too long ago", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		s.reissue(t, func(l *provenance.DenialList) { l.Issued = now.Add(-49 * time.Hour) })
	}},
	{"a denial list ahead of the clock", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		s.reissue(t, func(l *provenance.DenialList) { l.Issued, l.Expires = now.Add(time.Hour), now.Add(2*time.Hour) })
	}},
	{"a denial list of an old sequence", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		s.reissue(t, func(l *provenance.DenialList) { l.Sequence = 4 })
	}},
	{"an older list in force beside a newer that expired", "denials.current", "denials.current", wideScene, func(t testing.TB, s *scene) {
		security := s.in.Denials[0].Signer
		s.relist(func() {
			s.in.Denials = append(s.in.Denials, listed(t, security, func(l *provenance.DenialList) { l.Sequence, l.Expires = 8, now.Add(-time.Hour) }))
		})
	}},
	{"a revoked digest", "denied.digest", "denied.digest", wideScene, func(t testing.TB, s *scene) { s.deny(t, provenance.Denial{Digest: manifest}) }},
	{"a revoked index", "denied.digest", "denied.digest", fullList, func(t testing.TB, s *scene) { s.deny(t, provenance.Denial{Digest: index}) }},
	{"a revoked plaintext under a new encryption", "denied.plaintext", "plaintext.denied.plaintext", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Plaintext: root})
	}},
	{"a revoked plain artifact under encryption", "denied.plaintext", "plaintext.denied.plaintext", wideScene, func(t testing.TB, s *scene) {
		plain := digest.FromString("plain manifest")
		s.in.Statements[2].Statement = must[provenance.Statement](t)(provenance.NewPlaintext(provenance.Plaintext{Root: root, Manifest: plain}))
		s.deny(t, provenance.Denial{Plaintext: plain})
	}},
	{"an artifact whose plaintext nobody names, with a plaintext revoked", "denials.plaintext", "denials.plaintext", fullList, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Plaintext: root})
	}},
	{"a revoked range of releases", "denied.release", "require[0].denied.release tag.denied.release", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Name: "team/llama", From: 12, To: 12})
	}},
	{"a revoked range of releases, opened by digest", "denials", "denials.predicateType", fullList, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Name: "team/llama", From: 1, To: 5})
	}},
	{"a revoked key", "denied.signer", "plaintext.denied.signer require[0].denied.signer tag.denied.signer", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Key: keyIDOf(t, s.in.Statements[0].Signer)})
	}},
	{"a key revoked from a time on, with no time proven", "denied.signer", "plaintext.denied.signer require[0].denied.signer tag.denied.signer", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Key: keyIDOf(t, s.in.Statements[0].Signer), Since: now.Add(-time.Minute)})
	}},
	{"an identity revoked since before it signed", "denied.signer", "require[1].denied.signer", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Issuer: issuer, Subject: workflow, Since: now.Add(-time.Hour)})
	}},
	{"an identity revoked until after it signed", "denied.signer", "require[1].denied.signer", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Issuer: issuer, Subject: workflow, Until: now})
	}},
	{"a revoked builder", "denied.builder", "require[1].denied.builder", wideScene, func(t testing.TB, s *scene) { s.deny(t, provenance.Denial{Builder: builder}) }},
	{"made from a revoked dataset", "denied.material", "require[1].denied.material", wideScene, func(t testing.TB, s *scene) {
		s.deny(t, provenance.Denial{Digest: digest.FromString("data")})
	}},
}

// relist changes the lists after the base model was judged under the good ones.
func (s *scene) relist(change func()) {
	s.finish = nil
	change()
}

func (s *scene) reissue(t testing.TB, change func(*provenance.DenialList)) {
	s.relist(func() { s.in.Denials[0] = listed(t, s.in.Denials[0].Signer, change) })
}

// fullList is plainScene under a denial list with no entries.
func fullList(t testing.TB) *scene {
	s := plainScene(t)
	security := keyPrincipal(t, "security")
	s.policy.Denials = []provenance.DenialSource{{Name: "acme", Signers: []provenance.Principal{security}}}
	s.in.Denials = []provenance.Verified{listed(t, security, func(l *provenance.DenialList) { l.Entries = nil })}
	s.finish = func(t testing.TB, s *scene) {
		l := must[provenance.DenialList](t)(provenance.ParseDenials(s.in.Denials[0].Statement))
		s.in.Denials[0] = listed(t, security, func(mine *provenance.DenialList) { mine.Entries = l.Entries[len(l.Entries)-1:] })
	}
	return s
}

func keyIDOf(t testing.TB, p provenance.Principal) string {
	t.Helper()
	return must[string](t)(provenance.KeyID(must[any](t)(provenance.ParsePublicKey([]byte(p.Key)))))
}

// summaryMisses are about verification summaries. The requirements that a
// summary would stand in for are never met.
var summaryMisses = []nearMiss{
	{"a summary that failed", "vsa.result", "summary.vsa.result require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Result = "FAILED" })},
	{"a summary that passed in another case", "vsa.result", "summary.vsa.result require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Result = "passed" })},
	{"a summary by another verifier of the signer", "vsa.verifier", "summary.vsa.verifier require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Verifier.ID += "beta" })},
	{"a summary of another repository", "vsa.resource", "summary.vsa.resource require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Resource += "2" })},
	{"a summary under another policy", "vsa.policy", "summary.vsa.policy require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Policy.Digest["sha256"] = digest.FromString("lenient").Encoded() })},
	{"a summary of a lower level", "vsa.level", "summary.vsa.level require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Levels[0] = "SLSA_BUILD_LEVEL_1" })},
	{"a summary of a level of its own", "vsa.level", "summary.vsa.level require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Levels[0] = "SLSA_BUILD_LEVEL_3_UNEVALUATED" })},
	{"a summary of the source level", "vsa.level", "summary.vsa.level require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Levels = []string{"SLSA_SOURCE_LEVEL_3"} })},
	{"a summary too old", "vsa.maxAge", "summary.vsa.maxAge require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Verified = now.Add(-61 * time.Minute) })},
	{"a summary from the future", "vsa.maxAge", "summary.vsa.maxAge require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) { s.Verified = now.Add(48 * time.Hour) })},
	{"a summary without a time", "form", "summary.form require[0].predicateType", summaryScene, summarise(func(s *provenance.Summary) {
		s.Verified = time.Time{}
		s.Policy.Digest = map[string]string{}
	})},
	{"a summary by the publisher", "signer", "summary.signer require[0].predicateType", summaryScene, func(_ testing.TB, s *scene) {
		s.in.Statements[0].Signer = s.policy.Rules[0].Require[0].Signers[0]
	}},
	{"a summary of another artifact", "subject", "summary.subject require[0].predicateType", summaryScene, func(_ testing.TB, s *scene) {
		s.in.Statements[0].Subjects = []digest.Digest{digest.FromString("other")}
	}},
	{"a summary opened by tag", "tag", "tag.predicateType", summaryScene, func(_ testing.TB, s *scene) { s.in.Tag = "v3" }},
	{"one of two verifiers", "threshold", "summary.threshold require[0].predicateType", summaryScene, func(t testing.TB, s *scene) {
		r := s.policy.Rules[0].Summary
		r.Signers, r.Threshold = append(r.Signers, keyPrincipal(t, "second gate")), 2
	}},
}

func summarise(change func(*provenance.Summary)) func(testing.TB, *scene) {
	return func(t testing.TB, s *scene) { s.in.Statements[0].Statement = summaryStatement(t, change) }
}
