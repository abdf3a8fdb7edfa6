// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/vectors"
)

// cases is how many there were when the vectors were taken.
const cases = 70

// The defaults that the suite's README gives.
const (
	defaultIdentity = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
	defaultIssuer   = "https://token.actions.githubusercontent.com"
)

// TestClientAgreesWithSigstoreConformance runs every case of the suite's
// bundle-verify, by content and, where a subject's digest is all it takes, by
// digest.
func TestClientAgreesWithSigstoreConformance(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "sigstore-conformance"), "bundle-verify")
	public := publicInstance(t)
	found, err := filepath.Glob(filepath.Join(dir, "*", "bundle.sigstore.json"))
	if err != nil || len(found) != cases {
		t.Fatalf("%d cases (%v), want %d", len(found), err, cases)
	}
	for _, bundle := range found {
		c := filepath.Dir(bundle)
		t.Run(filepath.Base(c), func(t *testing.T) {
			args := []string{"verify-bundle", "--bundle", bundle, "--trusted-root", orDefault(filepath.Join(c, "trusted_root.json"), public)}
			if key := filepath.Join(c, "key.pub"); exists(key) {
				args = append(args, "--key", key)
			} else {
				args = append(args, "--certificate-identity", text(t, filepath.Join(c, "identity"), defaultIdentity),
					"--certificate-oidc-issuer", text(t, filepath.Join(c, "issuer"), defaultIssuer))
			}
			artifact := orDefault(filepath.Join(c, "artifact"), filepath.Join(dir, "a.txt"))
			content, err := os.ReadFile(artifact)
			if err != nil {
				t.Fatal(err)
			}
			for _, subject := range []string{artifact, fmt.Sprintf("sha256:%x", sha256.Sum256(content))} {
				err := run(t.Context(), append(args[:len(args):len(args)], subject))
				if fail := strings.HasSuffix(c, "_fail"); fail && err == nil {
					t.Errorf("%s: accepted", filepath.Base(subject))
				} else if !fail && err != nil {
					t.Errorf("%s: %v", filepath.Base(subject), err)
				} else {
					t.Logf("%s: %v", filepath.Base(subject), err)
				}
			}
		})
	}
}

// publicInstance is the trusted root of the public instance, which comes with
// the sources of sigstore-go.
func publicInstance(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-json", "github.com/sigstore/sigstore-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(module.Dir, "examples", "trusted-root-public-good.json")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func orDefault(path, fallback string) string {
	if exists(path) {
		return path
	}
	return fallback
}

func text(t *testing.T, path, fallback string) string {
	t.Helper()
	if !exists(path) {
		return fallback
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func TestClientRefusesAnotherIdentity(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "sigstore-conformance"), "bundle-verify")
	args := func(identity, issuer string) []string {
		return []string{"verify-bundle", "--bundle", filepath.Join(dir, "happy-path-v0.3", "bundle.sigstore.json"), "--trusted-root", publicInstance(t),
			"--certificate-identity", identity, "--certificate-oidc-issuer", issuer, filepath.Join(dir, "a.txt")}
	}
	if err := run(t.Context(), args(defaultIdentity, defaultIssuer)); err != nil {
		t.Fatal(err)
	}
	for _, other := range [][2]string{{defaultIdentity + "2", defaultIssuer}, {defaultIdentity, defaultIssuer + "/"}, {"", defaultIssuer}, {defaultIdentity, ""}} {
		if err := run(t.Context(), args(other[0], other[1])); err == nil {
			t.Errorf("identity %q, issuer %q: accepted", other[0], other[1])
		}
	}
}
