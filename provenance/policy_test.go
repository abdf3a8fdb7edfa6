// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/provenance"
)

// policyVectors are documents with one defect each. The first line says what a
// reader makes of it: "valid", or a part of our error.
func policyVectors(t testing.TB) map[string][2]string {
	t.Helper()
	paths := must[[]string](t)(filepath.Glob("testdata/policy/*.txt"))
	if len(paths) < 130 {
		t.Fatalf("%d vectors in testdata/policy", len(paths))
	}
	return readVectors(t, paths)
}

func readVectors(t testing.TB, paths []string) map[string][2]string {
	t.Helper()
	out := make(map[string][2]string)
	for _, path := range paths {
		header, document, ok := strings.Cut(string(must[[]byte](t)(os.ReadFile(path))), "\n\n")
		expect, isExpect := strings.CutPrefix(header, "expect: ")
		if !ok || !isExpect {
			t.Fatalf("%s has no expectation", path)
		}
		out[strings.TrimSuffix(filepath.Base(path), ".txt")] = [2]string{expect, document}
	}
	return out
}

func TestParsePolicyVectors(t *testing.T) {
	for name, v := range policyVectors(t) {
		t.Run(name, func(t *testing.T) {
			p, err := provenance.ParsePolicy([]byte(v[1]))
			if strings.HasPrefix(name, "valid") != (v[0] == "valid") {
				t.Fatalf("name and expectation %q disagree", v[0])
			}
			if v[0] != "valid" {
				if !errors.Is(err, provenance.ErrPolicy) || !strings.Contains(err.Error(), v[0]) {
					t.Errorf("got %v, want ErrPolicy with %q", err, v[0])
				}
				if !reflect.DeepEqual(p, provenance.Policy{}) {
					t.Error("a policy with an error was returned in part")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			document := must[[]byte](t)(json.Marshal(p))
			again := must[provenance.Policy](t)(provenance.ParsePolicy(document))
			if !reflect.DeepEqual(again, p) {
				t.Errorf("a round trip changed the policy:\n%+v\n%+v", p, again)
			}
			var decoded provenance.Policy
			if err := json.Unmarshal([]byte(v[1]), &decoded); err != nil || !reflect.DeepEqual(decoded, p) {
				t.Errorf("json.Unmarshal: got %+v, %v", decoded, err)
			}
		})
	}
}

func TestFault46BrokenPolicyFilesRefuseEverything(t *testing.T) {
	for name, v := range policyVectors(t) {
		p, _ := provenance.ParsePolicy([]byte(v[1]))
		if v[0] != "valid" && p.Evaluate(plainScene(t).in).Allowed {
			t.Errorf("%s: what was left of the policy allowed something", name)
		}
	}
	if _, err := provenance.ParsePolicy(make([]byte, provenance.MaxPolicy+1)); !errors.Is(err, provenance.ErrPolicy) {
		t.Errorf("over the limit: got %v", err)
	}
	for _, in := range []string{"", "null", "[]", `"x"`, "\xff"} {
		if _, err := provenance.ParsePolicy([]byte(in)); !errors.Is(err, provenance.ErrPolicy) {
			t.Errorf("%q: got %v, want ErrPolicy", in, err)
		}
	}
}

// TestValidateRefusesInGoWhatParsePolicyRefuses, for what the Go types can say.
func TestValidateRefusesInGoWhatParsePolicyRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(*provenance.Policy)
		want  string
	}{
		"a negative threshold":    {func(p *provenance.Policy) { p.Rules[0].Require[0].Threshold = -1 }, "threshold"},
		"a threshold too high":    {func(p *provenance.Policy) { p.Rules[0].Require[0].Threshold = 3 }, "can never be met"},
		"a negative age":          {func(p *provenance.Policy) { p.Rules[0].Require[1].MaxAge = -time.Second }, "maxAge"},
		"no signers":              {func(p *provenance.Policy) { p.Rules[0].Require[0].Signers = nil }, "no signers"},
		"no requirement":          {func(p *provenance.Policy) { p.Rules[0].Require = nil }, "no requirements"},
		"no pattern":              {func(p *provenance.Policy) { p.Rules[0].Repositories = nil }, "no repositories"},
		"an unreadable key":       {func(p *provenance.Policy) { p.Rules[0].Require[0].Signers[0].Key = "x" }, "not PEM"},
		"an empty principal":      {func(p *provenance.Policy) { p.Rules[0].GrantSigners = []provenance.Principal{{}} }, "names nobody"},
		"an unknown type":         {func(p *provenance.Policy) { p.Rules[0].Require[0].PredicateType = "x" }, "its meaning is unknown"},
		"two rules for one name":  {func(p *provenance.Policy) { p.Rules = append(p.Rules, p.Rules[0]) }, "exactly one rule"},
		"one name for two keys":   {func(p *provenance.Policy) { p.Rules[0].Require[0].Signers[0].Name = "second" }, "stands for two signers"},
		"a name no one may print": {func(p *provenance.Policy) { p.Rules[0].Name = "a\nb" }, "printable"},
		"a source with revision":  {func(p *provenance.Policy) { p.Rules[0].Require[1].Sources = []string{source + "@x"} }, "without a revision"},
		"an empty builder":        {func(p *provenance.Policy) { p.Rules[0].Require[1].Builders = []string{""} }, "builder"},
	} {
		s := fullScene(t)
		tt.spoil(&s.policy)
		err := s.policy.Validate()
		if !errors.Is(err, provenance.ErrPolicy) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want ErrPolicy with %q", name, err, tt.want)
		}
		if got := labels(s.policy.Evaluate(s.in)); !strings.HasPrefix(got, "policy") {
			t.Errorf("%s: refused by %q, want policy first", name, got)
		}
		if _, err := s.policy.Rule(repository); !errors.Is(err, provenance.ErrPolicy) {
			t.Errorf("%s: Rule: got %v, want ErrPolicy", name, err)
		}
	}
}

// TestK21WorkflowsNameTheirSource: a public reusable workflow runs for anybody.
func TestK21WorkflowsNameTheirSource(t *testing.T) {
	if err := provenance.RequireIdentity(issuer, workflow).Validate(); !errors.Is(err, provenance.ErrPolicy) || !strings.Contains(err.Error(), "sourceRepository") {
		t.Errorf("got %v, want an error that says what to add", err)
	}
	for _, subject := range []string{"release@example.com", "spiffe://example.com/ci", "https://kubernetes.io/namespaces/a/serviceaccounts/b"} {
		if err := provenance.RequireIdentity("https://issuer.example.com", subject).Validate(); err != nil {
			t.Errorf("%s: %v", subject, err)
		}
	}
}

func TestK20OneKeyHasOneName(t *testing.T) {
	text := publicPEM(t, newKey(t).Public())
	one, two := provenance.Principal{Name: "one", Key: text}, provenance.Principal{Name: "two", Key: "\n" + text + "\n"}
	rule := func(grants, signers provenance.Principal) provenance.Policy {
		return provenance.Policy{Rules: []provenance.Rule{{Repositories: []string{"*"}, GrantSigners: []provenance.Principal{grants},
			Require: []provenance.Requirement{{Signers: []provenance.Principal{signers}}}}}}
	}
	if err := rule(one, two).Validate(); !errors.Is(err, provenance.ErrPolicy) {
		t.Errorf("got %v, want ErrPolicy", err)
	}
	// Without a name it is the same principal, and takes the name.
	two.Name = ""
	for _, p := range []provenance.Policy{rule(one, two), rule(two, one)} {
		if b, err := json.Marshal(p); err != nil || strings.Count(string(b), `"one"`) != 3 {
			t.Errorf("got %s, %v", b, err)
		}
	}
}

func TestRequireKeyHasAJSONForm(t *testing.T) {
	key := newKey(t).Public()
	for name, p := range map[string]provenance.Policy{
		"key":      provenance.RequireKey(key),
		"types":    provenance.RequireKey(key, provenance.PredicateRelease, provenance.PredicateSLSA),
		"identity": provenance.RequireIdentity("https://issuer.example.com", "release@example.com"),
	} {
		a := must[[]byte](t)(json.Marshal(p))
		b := must[[]byte](t)(json.Marshal(must[provenance.Policy](t)(provenance.ParsePolicy(a))))
		if string(a) != string(b) {
			t.Errorf("%s: %s became %s", name, a, b)
		}
		if _, err := json.Marshal(p.For(repository)); !errors.Is(err, provenance.ErrPolicy) {
			t.Errorf("%s: after For: got %v, want ErrPolicy", name, err)
		}
	}
}

func TestRuleSaysWhatEvidenceToGather(t *testing.T) {
	s := fullScene(t)
	grants := keyPrincipal(t, "grants")
	rule := must[provenance.Rule](t)(s.policy.Rule(repository))
	if rule.Name != "team/llama" || len(rule.Keys()) != 2 || !reflect.DeepEqual(rule.Issuers(), []string{issuer}) || len(rule.GrantSigners) != 3 {
		t.Errorf("got %+v, %d keys, issuers %q", rule, len(rule.Keys()), rule.Issuers())
	}
	s.policy.Rules[0].GrantSigners = []provenance.Principal{grants}
	rule = must[provenance.Rule](t)(s.policy.Rule(repository))
	if len(rule.Keys()) != 3 || len(rule.GrantSigners) != 1 {
		t.Errorf("got %d keys, want that of the grant signer too", len(rule.Keys()))
	}
	var refusal *provenance.PolicyError
	if _, err := s.policy.Rule("registry.example.com/other"); !errors.As(err, &refusal) || refusal.Report.Allowed {
		t.Errorf("no rule: got %v, want a PolicyError", err)
	}
	if rule, err := s.policy.For(repository).Rule("oci:/mnt"); err != nil || rule.Name != "team/llama" {
		t.Errorf("after For: got %+v, %v", rule, err)
	}
	if rule, err := provenance.UnsafeAcceptUnsigned("demo").Rule(repository); err != nil || !rule.AllowUnindexed {
		t.Errorf("unsafe: got %+v, %v", rule, err)
	}
	if id, want := must[string](t)(provenance.KeyID(rule.Keys()[0])), 64; len(id) != want {
		t.Errorf("key id %q", id)
	}
}
