// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

// cosigns are the two CLIs, and the flags by which they do what is the same. The
// older one writes entries that Rekor version 2 no longer takes, so it signs
// with the timestamp authority alone.
var cosigns = map[string]struct {
	program      string
	verify, sign []string
	logs         int
}{
	"cosign 2.6.5": {"cosign", []string{"--new-bundle-format", "--use-signed-timestamps"}, []string{"--new-bundle-format"}, 0},
	"cosign 3.1.3": {"cosign-v3", nil, nil, 1},
}

func TestCosignVerifiesWhatWasPushedKeyless(t *testing.T) {
	s, cli := sigstoreStack(t), command(t)
	ref := repository(t) + ":v1"
	pinned := s.push(t, cli, ref, s.issuer.person(person))
	for name, c := range cosigns {
		t.Run(name, func(t *testing.T) {
			cosign := newTool(t, c.program)
			verify := func(identity, predicateType string) (string, error) {
				return cosign.run(t, slices.Concat([]string{"verify-attestation", "--trusted-root", s.rootPath, "--insecure-ignore-sct", "--allow-http-registry",
					"--certificate-identity", identity, "--certificate-oidc-issuer", s.issuer.people(), "--type", predicateType}, c.verify, []string{pinned})...)
			}
			for _, predicateType := range []string{"slsaprovenance1", provenance.PredicateRelease} {
				out, err := verify(person, predicateType)
				if err != nil {
					t.Fatal(err)
				}
				about(t, out, pinned)
			}
			if out, err := verify("x"+person, "slsaprovenance1"); err == nil {
				t.Errorf("accepts somebody else: %s", out)
			}
		})
	}
}

// about expects envelopes of statements about the one manifest.
func about(t *testing.T, out, pinned string) {
	t.Helper()
	_, want, _ := strings.Cut(pinned, "@sha256:")
	for line := range strings.Lines(out) {
		var envelope struct{ Payload string }
		var statement struct {
			Subject []struct{ Digest map[string]string }
		}
		err := json.Unmarshal([]byte(line), &envelope)
		payload, _ := base64.StdEncoding.DecodeString(envelope.Payload)
		if err == nil {
			err = json.Unmarshal(payload, &statement)
		}
		if err != nil || len(statement.Subject) != 1 || statement.Subject[0].Digest["sha256"] != want {
			t.Errorf("cosign printed %.500s (%v), want a statement about %s alone", line, err, want)
		}
	}
}

func TestCommandVerifiesWhatCosignSignedKeyless(t *testing.T) {
	s, cli := sigstoreStack(t), command(t)
	predicate := file(t, "predicate.json", []byte(slsaPredicate))
	for name, c := range cosigns {
		t.Run(name, func(t *testing.T) {
			cosign := newTool(t, c.program)
			pinned := strings.TrimSpace(cli.must(t, "push", model(t), repository(t)+":v1"))
			root, config := s.rootPath, s.cfgPath
			if c.logs == 0 {
				root, config = file(t, "root.json", without(t, s.root, "tlogs")), file(t, "config.json", without(t, s.config, "rekorTlogUrls"))
			}
			reader := []string{"verify", pinned, "--certificate-identity", person, "--certificate-oidc-issuer", s.issuer.people(), "--trusted-root", root}
			if _, err := cli.run(t, reader...); err == nil {
				t.Fatal("nobody signed, and it verifies")
			}
			token := file(t, "token", []byte(s.issuer.person(person)))
			for _, args := range [][]string{{"sign"}, {"attest", "--type", "slsaprovenance1", "--predicate", predicate}} {
				cosign.must(t, slices.Concat(args, []string{"--identity-token", token, "--signing-config", config, "--trusted-root", root,
					"--yes", "--allow-http-registry"}, c.sign, []string{pinned})...)
			}
			cli.must(t, reader...)
			policy, err := json.Marshal(map[string]any{
				"formatVersion": 1, "principals": map[string]any{"ci": map[string]string{"issuer": s.issuer.people(), "subject": person}},
				"rules": []any{map[string]any{"repositories": []string{"*"}, "require": []any{
					map[string]any{"predicateType": provenance.PredicateCosignSign, "signers": []string{"ci"}, "minLogEntries": c.logs, "minTimestamps": 1},
					map[string]any{"predicateType": provenance.PredicateSLSA, "signers": []string{"ci"}, "builders": []string{"https://example.com/builder"}},
				}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			cli.must(t, "verify", pinned, "--policy", file(t, "policy.json", policy), "--trusted-root", root)
		})
	}
}

// TestCommandVerifiesWhatCosignAttachedByTag is the layout of cosign 2 before
// bundles: envelopes under a tag.
func TestCommandVerifiesWhatCosignAttachedByTag(t *testing.T) {
	cli, cosign := command(t), newTool(t, "cosign")
	prefix := filepath.Join(t.TempDir(), "pair")
	cosign.must(t, "generate-key-pair", "--output-key-prefix", prefix)
	pinned := strings.TrimSpace(cli.must(t, "push", model(t), repository(t)+":v1"))
	policy, err := json.Marshal(map[string]any{
		"formatVersion": 1, "principals": map[string]any{"ci": map[string]string{"key": readFile(t, prefix+".pub")}},
		"rules": []any{map[string]any{"repositories": []string{"*"}, "require": []any{
			map[string]any{"predicateType": provenance.PredicateSLSA, "signers": []string{"ci"}, "builders": []string{"https://example.com/builder"}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := file(t, "policy.json", policy)
	attest := []string{"attest", "--new-bundle-format=false", "--tlog-upload=false", "--yes", "--allow-http-registry", "--type", "slsaprovenance1"}
	// The second is listed beside the first.
	for _, builder := range []string{"https://example.com/other", "https://example.com/builder"} {
		if out, err := cli.run(t, "verify", pinned, "--policy", path, "--cosign-tags"); err == nil {
			t.Errorf("before %s attested: %s", builder, out)
		}
		predicate := file(t, "predicate.json", []byte(strings.Replace(slsaPredicate, "https://example.com/builder", builder, 1)))
		cosign.must(t, append(attest, "--predicate", predicate, "--key", prefix+".key", pinned)...)
	}
	cli.must(t, "verify", pinned, "--policy", path, "--cosign-tags")
	if out, err := cli.run(t, "verify", pinned, "--policy", path); err == nil {
		t.Errorf("the tag was read by itself: %s", out)
	}
}

// slsaPredicate is without an invocationId, which cosign 2 writes as invocationID.
const slsaPredicate = `{"buildDefinition":{"buildType":"https://example.com/build/v1","externalParameters":{},"internalParameters":{},"resolvedDependencies":[]},
"runDetails":{"builder":{"id":"https://example.com/builder"}}}`

// TestKeyFilesOfCosign sign with our CLI, and verify.
func TestKeyFilesOfCosign(t *testing.T) {
	cli := command(t)
	for name, c := range cosigns {
		t.Run(name, func(t *testing.T) {
			cosign, cli := newTool(t, c.program), cli
			cosign.env = append(cosign.env, "COSIGN_PASSWORD=hunter2")
			prefix, ref := filepath.Join(t.TempDir(), "pair"), repository(t)+":v1"
			cosign.must(t, "generate-key-pair", "--output-key-prefix", prefix)
			push := []string{"push", model(t), ref, "--sign-key", prefix + ".key"}
			if _, err := cli.run(t, push...); err == nil || !strings.Contains(err.Error(), "wrong password") {
				t.Errorf("with an empty password: got %v", err)
			}
			cli.env = append(slices.Clone(cli.env), "COSIGN_PASSWORD=hunter2")
			cli.must(t, push...)
			cli.must(t, "verify", ref, "--key", prefix+".pub")
		})
	}
}

// npm is a verifier that shares no code with ours or with cosign's.
type npm struct {
	tool
	script string
}

func newNpm(t *testing.T) npm {
	t.Helper()
	x := npm{tool: newTool(t, "node")}
	modules := os.Getenv("MODELSEC_NODE_MODULES")
	if _, err := os.Stat(filepath.Join(modules, "@sigstore", "verify")); modules == "" || err != nil {
		missing(t, "the folder with @sigstore/verify that MODELSEC_NODE_MODULES names")
	}
	x.env = append(x.env, "NODE_PATH="+modules)
	var err error
	if x.script, err = filepath.Abs(filepath.Join("node", "verify.cjs")); err != nil {
		t.Fatal(err)
	}
	return x
}

func (x npm) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return x.tool.run(t, append([]string{x.script}, args...)...)
}

func TestNpmVerifiesWhatWasSignedKeyless(t *testing.T) {
	s, npm := sigstoreStack(t), newNpm(t)
	bundle := file(t, "bundle.json", s.sign(t, s.issuer.person(person)).Bytes())
	if out, err := npm.run(t, bundle, s.rootPath, s.issuer.people(), person); err != nil || !strings.Contains(out, person) {
		t.Errorf("says that %s signed: %v", out, err)
	}
	if out, err := npm.run(t, bundle, s.rootPath, s.issuer.people(), "x"+person); err == nil {
		t.Errorf("accepts somebody else: %s", out)
	}
}

// sign signs a statement about nothing in particular.
func (s *stack) sign(t *testing.T, token string) *provenance.Bundle {
	t.Helper()
	signer, err := sigstore.NewSigner(s.signerOptions(token))
	if err != nil {
		t.Fatal(err)
	}
	b, err := signer.Sign(t.Context(), provenance.PayloadType, []byte(statement))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
