// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// scene is a policy and evidence that meets it, to be spoiled in one place.
type scene struct {
	policy provenance.Policy
	in     provenance.Evidence
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

// nearMisses are refused for the reason given and for no other.
var nearMisses = []struct {
	name    string
	clause  string // whose absence would let it pass
	refused string // labels of the clauses that do not hold
	scene   func(testing.TB) *scene
	spoil   func(testing.TB, *scene)
}{
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
	{"signed in the future", "maxAge", "require[1].maxAge", fullScene, func(_ testing.TB, s *scene) {
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

func labels(r *provenance.Report) string {
	var out []string
	for _, c := range r.Refused() {
		if c.Requirement != "" {
			c.Name = c.Requirement + "." + c.Name
		}
		out = append(out, c.Name)
	}
	return strings.Join(out, " ")
}

func TestEvaluateAllowsWhatMeetsEveryClause(t *testing.T) {
	for name, make := range map[string]func(testing.TB) *scene{"full": fullScene, "plain": plainScene} {
		s := make(t)
		if r := s.policy.Evaluate(s.in); !r.Allowed || r.Err() != nil {
			t.Errorf("%s: %s", name, r)
		}
	}
}

func TestEvaluateRefusesNearMissesForTheirOwnReason(t *testing.T) {
	for _, miss := range nearMisses {
		t.Run(miss.name, func(t *testing.T) {
			s := miss.scene(t)
			miss.spoil(t, s)
			r := s.policy.Evaluate(s.in)
			if r.Allowed {
				t.Fatalf("allowed, want %q to refuse", miss.refused)
			}
			if got := labels(r); got != miss.refused {
				t.Errorf("refused by %q, want %q\n%s", got, miss.refused, r)
			}
			for _, c := range r.Refused() {
				if c.Found == "" || c.Needs == "" {
					t.Errorf("%s does not say what was found and what is needed: %+v", c.Name, c)
				}
			}
			var refusal *provenance.PolicyError
			if !errors.As(r.Err(), &refusal) || refusal.Report != r || strings.ContainsAny(refusal.Error(), "\n\r") {
				t.Errorf("got error %v", r.Err())
			}
		})
	}
}

// TestNoClauseIsIdle drops each clause in turn: unless an artifact then passes
// that must not, the clause does nothing.
func TestNoClauseIsIdle(t *testing.T) {
	for _, clause := range provenance.ClauseNames() {
		passed := false
		for _, miss := range nearMisses {
			if miss.clause != clause {
				continue
			}
			s := miss.scene(t)
			miss.spoil(t, s)
			passed = passed || provenance.EvaluateWithout(s.policy, s.in, clause).Allowed
		}
		if !passed {
			t.Errorf("without %q every near miss is refused all the same", clause)
		}
	}
}

// TestK28MoreEvidenceNeverRefuses: whoever can add to a listing must not be able
// to deny what the policy allows, nor take evidence away by adding to it.
func TestK28MoreEvidenceNeverRefuses(t *testing.T) {
	base := fullScene(t)
	for _, miss := range nearMisses {
		s := miss.scene(t)
		miss.spoil(t, s)
		in := base.in
		in.Statements = slices.Concat(s.in.Statements, base.in.Statements, s.in.Statements)
		in.Rejected = []provenance.Rejection{{Source: "sha256:00", Reason: "forged"}}
		if r := base.policy.Evaluate(in); !r.Allowed {
			t.Errorf("with the statements of %q: %s", miss.name, r)
		}
	}
}

// TestK20OneStatementMeetsEveryClause: one release with the right tag and one
// with the right sequence are not a release with both.
func TestK20OneStatementMeetsEveryClause(t *testing.T) {
	s := fullScene(t)
	s.policy.Rules[0].Require[0].Threshold = 1
	s.in.Statements[0].Statement = releaseStatement(t, func(r *provenance.Release) { r.Sequence = 1 })
	s.in.Statements[1].Statement = releaseStatement(t, func(r *provenance.Release) { r.Tags = []string{"v9"} })
	if got, want := labels(s.policy.Evaluate(s.in)), "require[0].release.sequence tag.release.sequence"; got != want {
		t.Errorf("refused by %q, want %q", got, want)
	}
}

// TestK4UnknownPredicatesSatisfyNothing: a signed "this model is malicious" is
// evidence too.
func TestK4UnknownPredicatesSatisfyNothing(t *testing.T) {
	key := newKey(t)
	signer := provenance.Principal{Key: publicPEM(t, key.Public())}
	in := plainScene(t).in
	for predicateType, want := range map[string]bool{
		provenance.PredicateCosignSign:               true,
		provenance.PredicateSLSA:                     false,
		provenance.PredicateGrant:                    false,
		"https://slsa.dev/verification_summary/v1":   false,
		"https://in-toto.io/attestation/vulns/v0.1":  false,
		"https://modelsec.github.io/release/v1/evil": false,
		"": false,
	} {
		in.Statements = []provenance.Verified{verified(signer, provenance.Statement{PredicateType: predicateType, Predicate: []byte(`{}`)})}
		if r := provenance.RequireKey(key.Public()).Evaluate(in); r.Allowed != want {
			t.Errorf("%q: allowed is %v, want %v", predicateType, r.Allowed, want)
		}
	}
	in.Statements = []provenance.Verified{verified(signer, releaseStatement(t, func(r *provenance.Release) { r.Profile = provenance.ProfilePlain }))}
	for tag, want := range map[string]bool{"": true, "v3": true, "v4": false} {
		in.Tag = tag
		if r := provenance.RequireKey(key.Public()).Evaluate(in); r.Allowed != want {
			t.Errorf("release by tag %q: allowed is %v, want %v\n%s", tag, r.Allowed, want, r)
		}
	}
}

// TestK3ATagNeedsAReleaseWhateverTheRuleSays, with the name of the rule or the
// repository's, and judged even where the requirement is another.
func TestK3ATagNeedsAReleaseWhateverTheRuleSays(t *testing.T) {
	s := plainScene(t)
	s.in.Tag = "v3"
	signer := s.in.Statements[0].Signer
	plain := func(r *provenance.Release) { r.Profile = provenance.ProfilePlain }
	s.in.Statements = append(s.in.Statements, verified(signer, releaseStatement(t, plain)))
	if r := s.policy.Evaluate(s.in); !r.Allowed {
		t.Errorf("signed release: %s", r)
	}
	s.policy.Rules[0].Name = "another name"
	if got, want := labels(s.policy.Evaluate(s.in)), "tag.release.name"; got != want {
		t.Errorf("named by the rule: refused by %q, want %q", got, want)
	}
	s.in.Statements[1].Statement = releaseStatement(t, func(r *provenance.Release) { plain(r); r.Name = "another name" })
	if r := s.policy.Evaluate(s.in); !r.Allowed {
		t.Errorf("named as the rule says: %s", r)
	}
	// A grant signer is no signer of the rule.
	outsider := keyPrincipal(t, "grants")
	s.policy.Rules[0].GrantSigners = []provenance.Principal{outsider}
	s.in.Statements[1].Signer = outsider
	if got, want := labels(s.policy.Evaluate(s.in)), "tag.signer"; got != want {
		t.Errorf("released by a grant signer: refused by %q, want %q", got, want)
	}
}

func TestK41ForNamesWhatALayoutStandsFor(t *testing.T) {
	s := fullScene(t)
	s.in.Reference = "oci:/mnt/models"
	if got := labels(s.policy.Evaluate(s.in)); got != "rule" {
		t.Errorf("without For: refused by %q", got)
	}
	r := s.policy.For(repository).Evaluate(s.in)
	if !r.Allowed || r.Repository != repository || r.Reference != "oci:/mnt/models" {
		t.Errorf("with For: %s", r)
	}
	if got := labels(s.policy.For("registry.example.com/team/other").Evaluate(s.in)); got != "require[0].release.name tag.release.name" {
		t.Errorf("for another repository: refused by %q", got)
	}
	for _, name := range []string{"", "*", "registry.example.com/team/*", "oci:/mnt/models"} {
		if got := labels(s.policy.For(name).Evaluate(s.in)); got != "rule" {
			t.Errorf("For(%q): refused by %q", name, got)
		}
	}
	if s.policy.Evaluate(s.in).Allowed {
		t.Error("For changed the policy that it was called on")
	}
	// The pattern * takes a layout, but a tag needs a name, which no disk has.
	signer := s.in.Statements[0].Signer
	s.policy = provenance.Policy{Rules: []provenance.Rule{{Repositories: []string{"*"}, Require: []provenance.Requirement{{Signers: []provenance.Principal{signer}}}}}}
	if got := labels(s.policy.Evaluate(s.in)); got != "require[0].release.name tag.release.name" {
		t.Errorf("under *: refused by %q", got)
	}
}

func TestK27ReportSaysWhetherRollbackIsPrevented(t *testing.T) {
	for _, tt := range []struct {
		name        string
		minSequence uint64
		expires     [2]time.Time
		want        string
	}{
		{"neither", 0, [2]time.Time{}, "unprotected"},
		{"sequence", 1, [2]time.Time{}, "protected"},
		{"expiry", 0, [2]time.Time{now.Add(time.Hour), now.Add(time.Hour)}, "protected"},
		{"a release that lasts beside one that expires", 0, [2]time.Time{now.Add(time.Hour), {}}, "unprotected"},
	} {
		s := fullScene(t)
		s.policy.Rules[0].MinSequence = tt.minSequence
		for i, e := range tt.expires {
			s.in.Statements[i].Statement = releaseStatement(t, func(r *provenance.Release) { r.Expires = e })
		}
		if r := s.policy.Evaluate(s.in); r.Rollback != tt.want || !r.Allowed {
			t.Errorf("%s: rollback %s, want %s", tt.name, r.Rollback, tt.want)
		}
	}
}

// TestK26KeysProveNoTime: an old signature can be stamped again today, so no
// time makes a signature by a key young.
func TestK26KeysProveNoTime(t *testing.T) {
	s := plainScene(t)
	key, ci := s.in.Statements[0].Signer, workflowPrincipal()
	s.policy.Rules[0].Require[0].Signers = []provenance.Principal{key, ci}
	s.policy.Rules[0].Require[0].MaxAge = time.Hour
	s.in.Statements[0].Times = []time.Time{now}
	if got := labels(s.policy.Evaluate(s.in)); got != "require[0].maxAge" {
		t.Errorf("signed by a key: refused by %q", got)
	}
	s.in.Statements[0].Signer = ci
	if r := s.policy.Evaluate(s.in); !r.Allowed {
		t.Errorf("signed by an identity: %s", r)
	}
}

func TestK25UnindexedArtifactsAreOptedInto(t *testing.T) {
	s := plainScene(t)
	s.in.IndexDigest, s.in.Profile = "", ""
	s.policy.Rules[0].AllowUnindexed = true
	if r := s.policy.Evaluate(s.in); !r.Allowed {
		t.Error(r)
	}
}

func TestUnsafeAcceptUnsignedIsLoud(t *testing.T) {
	p := provenance.UnsafeAcceptUnsigned("demo on a laptop")
	r := p.Evaluate(provenance.Evidence{Reference: repository, Manifest: manifest, Now: now})
	if !r.Allowed || r.Unsafe != "demo on a laptop" || r.Rollback != "unprotected" || !strings.Contains(r.String(), "unsafe: demo on a laptop") {
		t.Errorf("got %s", r)
	}
	if _, err := json.Marshal(p); !errors.Is(err, provenance.ErrPolicy) {
		t.Errorf("marshal: got %v, want ErrPolicy", err)
	}
	for name, p := range map[string]provenance.Policy{
		"no reason":    provenance.UnsafeAcceptUnsigned(" "),
		"rules beside": func() provenance.Policy { q := p; q.Rules = plainScene(t).policy.Rules; return q }(),
	} {
		if got := labels(p.Evaluate(plainScene(t).in)); !strings.HasPrefix(got, "policy") {
			t.Errorf("%s: refused by %q", name, got)
		}
	}
}

func TestReportJSONHasStableNames(t *testing.T) {
	s := fullScene(t)
	s.in.Rejected = []provenance.Rejection{{Source: "sha256:00", Reason: "signed by none of the 2 keys"}}
	b, err := json.Marshal(s.policy.Evaluate(s.in))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"allowed", "time", "reference", "tag", "manifest", "repository", "rule", "policy", "clauses", "statements", "rollback", "layerDigests"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no member %q", name)
		}
	}
	if got["allowed"] != true || got["layerDigests"] != "compared" || got["rollback"] != "protected" {
		t.Errorf("got %s", b)
	}
	if n := len(got["statements"].([]any)); n != 4 {
		t.Errorf("%d statements, want 3 proven and 1 rejected", n)
	}
}

// TestK47ReportShowsNoControlCharacters: the report goes to terminals and logs,
// and others wrote parts of it.
func TestK47ReportShowsNoControlCharacters(t *testing.T) {
	s := plainScene(t)
	s.in.Rejected = []provenance.Rejection{{Source: "\x1b[2Jx", Reason: "fine\nallowed: yes"}}
	s.in.Statements = append(s.in.Statements, verified(provenance.Principal{Issuer: "https://i\nallowed: yes", Subject: "\u202eevil"}, cosignStatement()))
	s.in.Tag = "v\r3"
	r := s.policy.Evaluate(s.in)
	for _, out := range []string{r.String(), r.Err().Error()} {
		if strings.ContainsAny(out, "\x1b\r\u202e") || strings.Contains(out, "\nallowed") {
			t.Errorf("got %q", out)
		}
	}
}
