// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
)

// emptyRoot is a trusted root that trusts nobody: only the key counts.
const emptyRoot = `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`

// cosign is the stock CLI, which trusts no service.
type cosign struct {
	path, root string
	env        []string
}

func newCosign(t *testing.T) *cosign {
	t.Helper()
	c := &cosign{path: program(t, "cosign"), root: filepath.Join(t.TempDir(), "root.json"), env: append(cleanEnv(t), "COSIGN_PASSWORD=")}
	if err := os.WriteFile(c.root, []byte(emptyRoot), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *cosign) run(t *testing.T, args ...string) (stdout []byte, err error) {
	t.Helper()
	cmd := exec.Command(c.path, args...)
	cmd.Dir, cmd.Env = t.TempDir(), c.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if stdout, err = cmd.Output(); err != nil {
		err = fmt.Errorf("cosign %s: %w\n%s", args[0], err, stderr.String())
	}
	return stdout, err
}

// verify is the line that the documentation gives.
func (c *cosign) verify(t *testing.T, key, predicateType, ref string) ([]byte, error) {
	t.Helper()
	return c.run(t, "verify-attestation", "--new-bundle-format", "--insecure-ignore-tlog", "--trusted-root", c.root,
		"--key", key, "--type", predicateType, "--allow-http-registry", ref)
}

// attested are servers with and without the referrers API.
var attested = map[string]func(*testing.T) server{
	"with the referrers API": olaregServer, "with fallback tags": dockerRegistry,
}

func TestCosignVerifiesWhatCommandPushed(t *testing.T) {
	cosign, c, stranger := newCosign(t), newCommand(t), newCommand(t)
	dir := smallModel(t)
	for name, start := range attested {
		for _, encrypted := range []bool{true, false} {
			name := name + ", plain"
			if encrypted {
				name = strings.TrimSuffix(name, "plain") + "encrypted"
			}
			t.Run(name, func(t *testing.T) {
				ref := start(t).host + "/team/model:v1"
				push := []string{"push", dir, ref, "--sign-key", c.key("signing.key")}
				if encrypted {
					push = append(push, "--recipient", c.key("identity.pub"))
				}
				pinned := strings.TrimSpace(c.run(t, 0, push...).stdout)
				if encrypted {
					c.run(t, 0, "grant", ref, "--identity", c.key("identity.key"), "--recipient", stranger.key("identity.pub"), "--key", c.key("signing.pub"))
				}
				for _, ref := range []string{ref, pinned} {
					for _, predicateType := range []string{"slsaprovenance1", provenance.PredicateRelease} {
						out, err := cosign.verify(t, c.key("signing.pub"), predicateType, ref)
						if err != nil {
							t.Errorf("%s of %s: %v", predicateType, ref, err)
						}
						saysOf(t, out, pinned)
					}
				}
				if out, err := cosign.verify(t, stranger.key("signing.pub"), "slsaprovenance1", ref); err == nil {
					t.Errorf("cosign accepts the key of a stranger: %s", out)
				}
				if out, err := cosign.verify(t, c.key("signing.pub"), "spdxjson", ref); err == nil {
					t.Errorf("cosign finds a predicate that nobody signed: %s", out)
				}
			})
		}
	}
}

// saysOf expects statements about the one manifest, and nothing else.
func saysOf(t *testing.T, out []byte, pinned string) {
	t.Helper()
	_, want, _ := strings.Cut(pinned, "@sha256:")
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	for _, line := range lines {
		var envelope struct{ Payload string }
		var statement struct {
			Subject []struct{ Digest map[string]string }
		}
		err := json.Unmarshal(line, &envelope)
		payload, _ := base64.StdEncoding.DecodeString(envelope.Payload)
		if err == nil {
			err = json.Unmarshal(payload, &statement)
		}
		if err != nil || len(statement.Subject) != 1 || statement.Subject[0].Digest["sha256"] != want {
			t.Errorf("cosign printed %.500s (%v), want a statement about %s alone", line, err, want)
		}
	}
}

func TestCommandVerifiesWhatCosignSigned(t *testing.T) {
	cosign, c := newCosign(t), newCommand(t)
	dir := smallModel(t)
	keys := filepath.Join(t.TempDir(), "imported")
	if _, err := cosign.run(t, "import-key-pair", "--key", c.key("signing.key"), "--output-key-prefix", keys); err != nil {
		t.Fatal(err)
	}
	predicate := filepath.Join(t.TempDir(), "predicate.json")
	if err := os.WriteFile(predicate, []byte(slsaPredicate), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, start := range attested {
		t.Run(name, func(t *testing.T) {
			ref := start(t).host + "/team/model:v1"
			pinned := strings.TrimSpace(c.run(t, 0, "push", dir, ref).stdout)
			c.run(t, 3, "verify", pinned, "--key", c.key("signing.pub"))
			for _, args := range [][]string{
				{"attest", "--type", "slsaprovenance1", "--predicate", predicate},
				{"sign"},
			} {
				args = slices.Concat(args[:1], []string{"--new-bundle-format", "--tlog-upload=false", "--yes", "--allow-http-registry", "--key", keys + ".key"}, args[1:], []string{pinned})
				if _, err := cosign.run(t, args...); err != nil {
					t.Fatal(err)
				}
			}
			c.run(t, 0, "verify", pinned, "--key", c.key("signing.pub"))
		})
	}
}

const slsaPredicate = `{"buildDefinition":{"buildType":"https://example.com/build/v1","externalParameters":{},"internalParameters":{},"resolvedDependencies":[]},
"runDetails":{"builder":{"id":"https://example.com/builder"},"metadata":{"invocationId":"1"}}}`
