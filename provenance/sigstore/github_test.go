// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/vectors"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

// attested is a public attestation that GitHub made: a workflow of one
// repository was called from another.
const attested = "reusable-workflow-attestation.sigstore.json"

var attestedSubject = digest.Digest("sha256:49a3aa6075e0f49f82843e74b5baa614ad2a588e6675612bf108a0a008c5ac25")

// githubPolicy names everything that the certificate and the provenance say.
func githubPolicy() (principal map[string]string, clauses map[string][]string) {
	return map[string]string{
			"issuer":           "https://token.actions.githubusercontent.com",
			"subject":          "https://github.com/github/artifact-attestations-workflows/.github/workflows/attest.yml@09b495c3f12c7881b3cc17209a327792065c1a1d",
			"sourceRepository": "https://github.com/malancas/attest-demo", "sourceOwnerId": "16248153",
			"sourceRef": "refs/heads/main", "trigger": "workflow_dispatch", "runnerEnvironment": "github-hosted",
		}, map[string][]string{
			"builders": {"https://github.com/actions/runner/github-hosted"},
			"sources":  {"git+https://github.com/malancas/attest-demo"},
		}
}

// judge evaluates a policy for what was proven. Only the policy's own clauses
// matter here, so the subject stands for the manifest.
func judge(t *testing.T, v *provenance.Verified, principal map[string]string, clauses map[string][]string) *provenance.Report {
	t.Helper()
	require := map[string]any{"predicateType": provenance.PredicateSLSA, "signers": []string{"github"}, "minLogEntries": 1}
	for name, value := range clauses {
		require[name] = value
	}
	text, err := json.Marshal(map[string]any{
		"formatVersion": 1, "principals": map[string]any{"github": principal},
		"rules": []any{map[string]any{"repositories": []string{"*"}, "allowUnindexed": true, "require": []any{require}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := provenance.ParsePolicy(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return policy.Evaluate(provenance.Evidence{
		Reference: "registry.example.com/team/model", Manifest: attestedSubject, Statements: []provenance.Verified{*v}, Now: time.Now(),
	})
}

func TestGitHubAttestationVerifiesUnderItsWorkflowAndRepositoryAlone(t *testing.T) {
	b := bundle(t, attested)
	v, err := publicVerifier(t).Verify(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if v.LogEntries != 1 || v.SCTs != 1 || v.Timestamps != 0 || len(v.Times) != 1 || len(v.Subjects) != 1 || v.Subjects[0] != attestedSubject {
		t.Errorf("proved %+v", v)
	}
	principal, clauses := githubPolicy()
	if r := judge(t, v, principal, clauses); !r.Allowed {
		t.Fatal(r)
	}
	refused := func(what string, principal map[string]string, clauses map[string][]string) {
		if r := judge(t, v, principal, clauses); r.Allowed {
			t.Errorf("%s: allowed", what)
		}
	}
	for member, value := range principal {
		for i := range value {
			principal[member] = differ(value, i)
			refused(member+" "+principal[member], principal, clauses)
		}
		principal[member] = value + "0"
		refused(member+" "+principal[member], principal, clauses)
		principal[member] = value
	}
	for name, list := range clauses {
		value := list[0]
		for i := range value {
			list[0] = differ(value, i)
			refused(name+" "+list[0], principal, clauses)
		}
		list[0] = value
	}
}

// differ changes one character, and a digit into a digit.
func differ(s string, i int) string {
	c := byte('x')
	switch {
	case s[i] >= '0' && s[i] <= '9':
		c = '0' + (s[i]-'0'+1)%10
	case s[i] == 'x':
		c = 'y'
	case s[i] == '@':
		c = '%'
	}
	return s[:i] + string(c) + s[i+1:]
}

// TestGitHubVectors: what cli/cli tests gh attestation with.
func TestGitHubVectors(t *testing.T) {
	v := publicVerifier(t)
	for name, want := range map[string]error{
		attested:                                nil,
		"custom-issuer.sigstore.json":           nil,
		"sigstore-js-2.1.0-bundle.json":         provenance.ErrFormat, // proven, and about a sha512 digest alone
		"sigstoreBundle-invalid-signature.json": provenance.ErrSignature,
		// Signed at GitHub's own instance, which is not the public one.
		"github_provenance_demo-0.0.12-py3-none-any-bundle.jsonl": provenance.ErrSignature,
	} {
		if _, err := v.Verify(t.Context(), bundle(t, name)); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{
		"github_provenance_demo-0.0.12-py3-none-any-bundle-missing-cert.jsonl",
		"github_provenance_demo-0.0.12-py3-none-any-bundle-missing-verification-material.jsonl",
	} {
		if b, err := provenance.ParseBundle(vector(t, name)); err == nil {
			t.Errorf("%s: parsed as %s", name, b.Bytes())
		}
	}
}

// TestVerifierCounts: statements of the conformance suite, of each version and
// with logs of both.
func TestVerifierCounts(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "sigstore-conformance"), "bundle-verify")
	public := vector(t, "trusted_root.json")
	for name, want := range map[string]provenance.Verified{
		"happy-path-intoto-in-dsse-v3":  {LogEntries: 1, SCTs: 1},
		"intoto-with-custom-trust-root": {LogEntries: 1, SCTs: 1, Timestamps: 1},
		"rekor2-dsse-happy-path":        {LogEntries: 1, SCTs: 1, Timestamps: 1},
	} {
		root, err := os.ReadFile(filepath.Join(dir, name, "trusted_root.json"))
		if errors.Is(err, fs.ErrNotExist) {
			root, err = public, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		text := must(os.ReadFile(filepath.Join(dir, name, "bundle.sigstore.json")))
		v := must(sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{root}}))
		got, err := v.Verify(t.Context(), must(provenance.ParseBundle(text)))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.LogEntries != want.LogEntries || got.SCTs != want.SCTs || got.Timestamps != want.Timestamps || got.Statement.PredicateType != provenance.PredicateSLSA {
			t.Errorf("%s: %d log entries, %d certificate timestamps, %d timestamps, want %d, %d, %d", name,
				got.LogEntries, got.SCTs, got.Timestamps, want.LogEntries, want.SCTs, want.Timestamps)
		}
	}
}

func vector(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors.Dir(t, "github-attestations"), name))
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSpace(string(b)))
}

func bundle(t *testing.T, name string) *provenance.Bundle {
	t.Helper()
	b, err := provenance.ParseBundle(vector(t, name))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return b
}

// publicVerifier trusts the public instance as of the vectors.
func publicVerifier(t *testing.T) *sigstore.Verifier {
	t.Helper()
	v, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{vector(t, "trusted_root.json")}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}
