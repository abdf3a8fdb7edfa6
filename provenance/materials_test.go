// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

func TestInputsAreThoseOfBuildsThatCount(t *testing.T) {
	s := wideScene(t)
	s.in.Materials = nil
	inputs := s.policy.Inputs(s.in)
	if len(inputs) != 3 {
		t.Fatalf("got %+v, want the base, the dataset and the code", inputs)
	}
	want := provenance.Artifact{Repository: baseRepository, Manifest: baseModel, Role: provenance.RoleBase}
	if in := inputs[0]; in.Artifact != want || !in.Needed || in.Problem != "" {
		t.Errorf("got %+v", in)
	}
	for _, in := range inputs[1:] {
		if in.Needed || in.Problem == "" || in.Repository != "" || in.Digest == "" {
			t.Errorf("got %+v, want something that is not followed", in)
		}
	}
	// Nobody follows what a stranger signed, nor what was refused anyway.
	s.in.Statements[1].Signer = keyPrincipal(t, "stranger")
	if inputs := s.policy.Inputs(s.in); inputs != nil {
		t.Errorf("got %+v", inputs)
	}
}

// TestK42InputsStayInsideTheListedRepositories, however a URI is spelt.
func TestK42InputsStayInsideTheListedRepositories(t *testing.T) {
	hex := baseModel.Encoded()
	for uri, follows := range map[string]bool{
		"registry.example.com/base/llama":                   true,
		"oci://registry.example.com/base/llama":             true,
		"registry.example.com/base/llama:v1":                true,
		"registry.example.com/base/llama@sha256:" + hex:     true,
		"registry.example.com/base/llama:v1@sha256:" + hex:  true,
		"registry.example.com/base/llama@sha256:" + hex[1:]: false,
		"registry.example.com/base/llama@v1":                false,
		"registry.example.com/bases/llama":                  false,
		"registry.example.com/base/../team/llama":           false,
		"evil.example.com/registry.example.com/base/llama":  false,
		"https://registry.example.com/base/llama":           false,
		"user@registry.example.com/base/llama":              false,
		"oci:registry.example.com/base/llama":               false,
		"oci:/etc":                                          false,
		"registry.example.com:99999999/base/llama":          false,
		"169.254.169.254/base/llama":                        false,
		"":                                                  false,
	} {
		s := wideScene(t)
		s.policy.Rules[0].Require[1].Materials = nil
		s.rebuild(t, func(b *provenance.Build) { b.Dependencies[0].URI = uri })
		inputs := s.policy.Inputs(s.in)
		if len(inputs) != 3 {
			t.Fatalf("%q: got %+v", uri, inputs)
		}
		if got := inputs[0].Problem == ""; got != follows || follows && inputs[0].Repository != baseRepository {
			t.Errorf("%q: followed is %v, want %v: %+v", uri, got, follows, inputs[0])
		}
	}
}

// TestMaterialsThatClimbAreNotWhereTheyBegin: the URI is what a build was told
// from outside, and HTTP clients take dot segments out of it.
func TestMaterialsThatClimbAreNotWhereTheyBegin(t *testing.T) {
	const maker = "https://models.example.com/maker"
	for uri, admitted := range map[string]bool{
		maker + "/llama":                     true,
		maker + "/llama@refs/heads/v1.2..":   true,
		maker + "/../evil/llama":             false,
		maker + "/a/./../../evil/llama":      false,
		maker + "/%2E%2e/evil/llama":         false,
		maker + "/..%2Fevil/llama":           false,
		maker + `/..\evil\llama`:             false,
		maker + "/llama@/../../evil/llama":   false,
		maker + "/llama@v1/../../evil/llama": false,
	} {
		for _, allowed := range []string{maker + "/*", maker + "/llama"} {
			s := wideScene(t)
			q := &s.policy.Rules[0].Require[1]
			q.Materials = []provenance.MaterialRule{{Role: provenance.RoleBase, Allowed: []provenance.MaterialMatch{{URI: allowed}}}}
			s.rebuild(t, func(b *provenance.Build) { b.Dependencies[0].URI = uri })
			if r := s.policy.Evaluate(s.in); r.Allowed != admitted {
				t.Errorf("%s under %s: allowed is %v", uri, allowed, r.Allowed)
			}
			// What has the digest that was asked for is that, wherever it was.
			q.Materials[0].Allowed[0].URI, q.Materials[0].Allowed[0].Digest = "", baseModel
			if r := s.policy.Evaluate(s.in); !r.Allowed {
				t.Errorf("%s: refused by digest: %s", uri, r)
			}
		}
	}
}

// TestSourcesThatClimbAreNotTheSource.
func TestSourcesThatClimbAreNotTheSource(t *testing.T) {
	for revision, admitted := range map[string]bool{"": true, "@refs/heads/main": true, "@/../../evil/train": false} {
		s := wideScene(t)
		q := &s.policy.Rules[0].Require[1]
		q.SourceRefs, q.SourceDigests, q.Materials = nil, nil, nil
		source := q.Sources[0]
		s.rebuild(t, func(b *provenance.Build) {
			for i, d := range b.Dependencies {
				if strings.HasPrefix(d.URI, source) {
					b.Dependencies[i].URI = source + revision
				}
			}
		})
		if r := s.policy.Evaluate(s.in); r.Allowed != admitted {
			t.Errorf("%s%s: allowed is %v: %s", source, revision, r.Allowed, r)
		}
	}
}

func TestPlaintextRootIsWhatSha256sumPrints(t *testing.T) {
	files := []provenance.FileDigest{{Path: "b/model.safetensors", SHA256: sha256.Sum256([]byte("weights"))}, {Path: "a.json", SHA256: sha256.Sum256([]byte("{}"))}}
	got := must[digest.Digest](t)(provenance.PlaintextRoot(files))
	text := hexOf(files[1].SHA256[:]) + "  a.json\n" + hexOf(files[0].SHA256[:]) + "  b/model.safetensors\n"
	// printf '{}' >a.json; printf weights >b/model.safetensors; sha256sum a.json b/model.safetensors | sha256sum
	if want := digest.FromString(text); got != want || got.Encoded() != "19e5b0c2b1836ae9003219a72d3875ca8d426f77755c323e266ff4ad2a20b912" {
		t.Errorf("got %s, want %s", got, want)
	}
	if files[0].Path != "b/model.safetensors" {
		t.Error("the caller's list was sorted")
	}
	for name, bad := range map[string][]provenance.FileDigest{
		"no files":     nil,
		"a file twice": {files[0], files[0]},
		"no path":      {{}},
		"a line feed":  {{Path: "a\nb"}},
		"a backslash":  {{Path: "a\\b"}},
	} {
		if root, err := provenance.PlaintextRoot(bad); err == nil {
			t.Errorf("%s: got %s", name, root)
		}
	}
}

// TestK19ABuildersOwnBundleCountsThroughThePublishersBinding: he signed before
// anything was encrypted.
func TestK19ABuildersOwnBundleCountsThroughThePublishersBinding(t *testing.T) {
	plain := digest.FromString("plain manifest")
	for _, subject := range []digest.Digest{root, plain} {
		s := wideScene(t)
		s.policy.Rules[0].Require[1].Plaintext = true
		s.in.Statements[1].Subjects = []digest.Digest{subject}
		s.in.Statements[2].Statement = must[provenance.Statement](t)(provenance.NewPlaintext(provenance.Plaintext{Root: root, Manifest: plain}))
		judgeBase(t, s)
		r := s.policy.Evaluate(s.in)
		if !r.Allowed || r.Plaintext != "compared" || len(r.Plaintexts) != 1 || r.Plaintexts[0] != root {
			t.Errorf("about %s: %s %q %q", subject, r, r.Plaintext, r.Plaintexts)
		}
	}
}

// TestK19TheTableGivesTheLevel, the least of all builds that are asked for.
func TestK19TheTableGivesTheLevel(t *testing.T) {
	s := wideScene(t)
	if r := s.policy.Evaluate(s.in); r.Level != 2 {
		t.Errorf("got level %d, want 2", r.Level)
	}
	more := s.policy.Rules[0].Require[1]
	more.MinLevel, more.Signers, more.MinSCTs = 0, s.policy.Rules[0].Require[0].Signers, 0
	s.policy.Rules[0].Require = append(s.policy.Rules[0].Require, more)
	s.in.Statements = append(s.in.Statements, verified(more.Signers[0], slsaStatement(t, func(b *provenance.Build) { b.Builder = "https://builders.example.com/unknown" })))
	judgeBase(t, s)
	if r := s.policy.Evaluate(s.in); !r.Allowed || r.Level != 0 {
		t.Errorf("with a builder that the table does not know: level %d, %s", r.Level, r)
	}
}

// TestRefsOfTagsMatchTagsAlone is the one pattern that principals have.
func TestRefsOfTagsMatchTagsAlone(t *testing.T) {
	p := workflowPrincipal()
	p.Subject, p.SourceRef = strings.Replace(workflow, "refs/heads/main", "refs/tags/*", 1), "refs/tags/*"
	for ref, want := range map[string]bool{"refs/tags/v1.2": true, "refs/tags/a/b": true, "refs/tags/": false, "refs/heads/v1": false, "refs/tagsv1": false, "refs/heads/refs/tags/v1": false} {
		s := plainScene(t)
		s.policy.Rules[0].Require[0].Signers = []provenance.Principal{p}
		signer := p
		signer.Subject, signer.SourceRef = strings.Replace(workflow, "refs/heads/main", ref, 1), ref
		s.in.Statements[0].Signer = signer
		if r := s.policy.Evaluate(s.in); r.Allowed != want {
			t.Errorf("%s: allowed is %v, want %v: %s", ref, r.Allowed, want, r)
		}
	}
}
