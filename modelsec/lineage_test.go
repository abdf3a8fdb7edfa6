// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

const builders = "https://builders.example.com/"

// generations publishes a quantised model of a base into which an adapter was
// merged, and everything before it: two datasets, three builders.
func generations(t testing.TB) (*family, map[string]digest.Digest) {
	f := newFamily(t)
	f.rules.Rules[0].Require[0].Materials = nil
	release := f.rules.Rules[0]
	release.Repositories = []string{"registry.example.com/team/pretrain-data", "registry.example.com/team/chat-data"}
	release.Require = []provenance.Requirement{{PredicateType: provenance.PredicateRelease, Signers: []provenance.Principal{f.principal(t)}}}
	f.rules.Rules = []provenance.Rule{f.rules.Rules[0], release}
	f.rules.Rules[0].Repositories = []string{"registry.example.com/team/base", "registry.example.com/team/adapter", "registry.example.com/team/merged", "registry.example.com/team/quantised"}
	made := make(map[string]digest.Digest)
	for _, name := range []string{"pretrain-data", "chat-data"} {
		// Datasets are artifacts like models, pushed and signed by the same call.
		d := push(t, f.client(), teamHost+"team/"+name+":v1", source(map[string]int{"part-0.jsonl": len(name) * 40, "part-1.jsonl": 77}), f.options(nil))
		made[name] = d.Digest
	}
	of := func(role, name string) provenance.Dependency { return input(role, "team/"+name, made[name]) }
	for _, step := range []struct {
		name string
		b    provenance.Build
	}{
		{"base", provenance.Build{Builder: builders + "train", Parameters: provenance.Train{Source: "git+https://example.com/train"}}},
		{"adapter", provenance.Build{Builder: builders + "tune", Parameters: provenance.FineTune{Method: "lora"}}},
		{"merged", provenance.Build{Builder: builders + "tune", Parameters: provenance.Merge{Method: "linear"}}},
		{"quantised", provenance.Build{Builder: builders + "quantise", Parameters: provenance.Quantise{Scheme: "int8"}}},
	} {
		switch step.name {
		case "base":
			step.b.Dependencies = []provenance.Dependency{of(provenance.RoleDataset, "pretrain-data"),
				{URI: "git+https://example.com/train@refs/heads/main", Digest: digestOf(nil), Role: provenance.RoleCode}}
		case "adapter":
			step.b.Dependencies = []provenance.Dependency{of(provenance.RoleBase, "base"), of(provenance.RoleDataset, "chat-data")}
		case "merged":
			step.b.Dependencies = []provenance.Dependency{of(provenance.RoleBase, "base"), of(provenance.RoleAdapter, "adapter")}
		case "quantised":
			step.b.Dependencies = []provenance.Dependency{of(provenance.RoleBase, "merged")}
		}
		made[step.name] = f.make(t, "team/"+step.name, step.b)
	}
	return f, made
}

func lineageOf(t testing.TB, f *family) (*modelsec.Lineage, error) {
	t.Helper()
	return f.client().Lineage(t.Context(), teamHost+"team/quantised:v1", f.rules)
}

// TestLineageShowsEveryAncestorVerified: the base, the adapter, two datasets and
// three builders of a quantised, adapter-merged model.
func TestLineageShowsEveryAncestorVerified(t *testing.T) {
	f, made := generations(t)
	l, err := lineageOf(t, f)
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for _, n := range l.Nodes {
		if n.Kind != "input" && n.State != "verified" {
			t.Errorf("%+v is not verified", n)
		}
		count[n.Kind]++
	}
	roles := make(map[string]map[string]bool)
	for _, e := range l.Edges {
		if roles[e.Role] == nil {
			roles[e.Role] = make(map[string]bool)
		}
		roles[e.Role][l.Nodes[e.To].Name] = true
	}
	if count["artifact"] != 6 || count["builder"] != 3 || count["input"] != 1 {
		t.Errorf("got %v, want 6 artifacts, 3 builders and the code", count)
	}
	for role, want := range map[string][]string{
		"base": {"base", "merged"}, "adapter": {"adapter"}, "dataset": {"pretrain-data", "chat-data"},
	} {
		if len(roles[role]) != len(want) || slices.ContainsFunc(want, func(name string) bool { return !roles[role][teamHost+"team/"+name] }) {
			t.Errorf("%s: got %v, want %q", role, roles[role], want)
		}
	}
	text, dot := l.String(), l.DOT()
	for _, want := range []string{
		"registry.example.com/team/quantised@" + string(made["quantised"]) + ": verified\n",
		"├── builder " + builders + "quantise: verified, quantise\n",
		"└── base registry.example.com/team/merged@",
		"    ├── builder " + builders + "tune: verified, merge\n",
		"dataset registry.example.com/team/chat-data@" + string(made["chat-data"]) + ": verified\n",
		"code git+https://example.com/train@refs/heads/main@" + string(digestOf(nil)) + ": stated (",
		"(as above)",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the tree lacks %q:\n%s", want, text)
		}
	}
	if !strings.HasPrefix(dot, "digraph lineage {\n") || strings.Count(dot, "->") != len(l.Edges) || strings.Count(dot, "shape=ellipse") != 3 {
		t.Errorf("got %s", dot)
	}
}

// TestLineageNamesTheLinkThatBroke, each in turn.
func TestLineageNamesTheLinkThatBroke(t *testing.T) {
	for _, name := range []string{"pretrain-data", "chat-data", "base", "adapter", "merged"} {
		f, made := generations(t)
		repository := teamHost + "team/" + name
		s := openShelf(t, f.memory, repository)
		d := must(s.Resolve(t.Context(), string(made[name])))
		for _, r := range s.referrers(d, provenance.BundleMediaType) {
			if err := s.Delete(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		l, err := lineageOf(t, f)
		refused(t, err, errPolicy)
		contains(t, err, repository+"@"+string(made[name]))
		for _, n := range l.Nodes {
			if broken := n.State == "refused"; broken != (n.Name == repository) {
				t.Errorf("without the attestations of %s: %+v", name, n)
			}
		}
		if err := s.Delete(t.Context(), ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}); err != nil {
			t.Fatal(err)
		}
		l, err = lineageOf(t, f)
		if l == nil || err == nil {
			t.Fatalf("without %s: got %v, %v", name, l, err)
		}
		contains(t, err, repository+"@"+string(made[name]))
		if !strings.Contains(l.String(), "refused") || !strings.Contains(l.DOT(), "color=red") {
			t.Errorf("without %s the drawing shows nothing:\n%s", name, l)
		}
	}
}

// TestLineageOfARefusedArtifactFollowsNothing: what an unverified statement
// names is not asked for.
func TestLineageOfARefusedArtifactFollowsNothing(t *testing.T) {
	f, _ := generations(t)
	f.rules.Rules[0].Require[0].Signers = []provenance.Principal{newParty(t).principal(t)}
	f.visited = nil
	l, err := lineageOf(t, f)
	refused(t, err, errPolicy)
	if len(l.Nodes) != 1 || len(f.visited) != 1 {
		t.Errorf("got %s, asked for %q", l, f.visited)
	}
}

// TestLineageIsVerifiedByItsShortestWay: what lies beyond the bounds on one way
// may be near on another.
func TestLineageIsVerifiedByItsShortestWay(t *testing.T) {
	f := newFamily(t)
	f.rules.Rules[0].Require[0].Materials = nil
	f.rules.Lineage.MaxDepth = 2
	old := f.make(t, "team/old", provenance.Build{})
	middle := f.make(t, "team/middle", provenance.Build{Dependencies: []provenance.Dependency{input(provenance.RoleBase, "team/old", old)}})
	near := f.make(t, "team/nearer", provenance.Build{Dependencies: []provenance.Dependency{input(provenance.RoleBase, "team/middle", middle)}})
	far := provenance.Build{Dependencies: []provenance.Dependency{input(provenance.RoleBase, "team/nearer", near), input(provenance.RoleBase, "team/old", old)}}
	f.make(t, "team/quantised", far)
	l, err := lineageOf(t, f)
	if err != nil || len(l.Nodes) != 5 {
		t.Errorf("got %v, %v", l, err)
	}
}

func TestLineageTextIsFitForDrawing(t *testing.T) {
	l := &modelsec.Lineage{Nodes: []modelsec.LineageNode{{Kind: "input", Name: `a"] ; evil \ `, State: "stated"}}}
	if got, want := l.DOT(), `label="a\"] ; evil \\ \nstated"`; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if (&modelsec.Lineage{}).String() != "" {
		t.Error("nothing is drawn as something")
	}
}
