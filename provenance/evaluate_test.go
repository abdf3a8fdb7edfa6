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

	"github.com/modelsec/modelsec-go/provenance"
)

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
	for name, make := range map[string]func(testing.TB) *scene{"full": fullScene, "plain": plainScene, "wide": wideScene, "summary": summaryScene} {
		s := make(t)
		if r := s.policy.Evaluate(s.in); !r.Allowed || r.Err() != nil {
			t.Errorf("%s: %s", name, r)
		}
	}
}

func TestEvaluateRefusesNearMissesForTheirOwnReason(t *testing.T) {
	for _, miss := range nearMisses {
		t.Run(miss.name, func(t *testing.T) {
			s := miss.of(t)
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
			s := miss.of(t)
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
		s := miss.of(t)
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
