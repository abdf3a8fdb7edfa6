// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"

	"github.com/modelsec/modelsec-go/provenance"
)

const person = "ci@example.com"

// repository starts a registry and returns a name in it.
func repository(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://") + "/team/model"
}

// model is a directory to push.
func model(t *testing.T) string {
	t.Helper()
	path := file(t, "config.json", []byte(`{"model_type":"test"}`))
	return strings.TrimSuffix(path, "/config.json")
}

// asPerson are the flags of a reader who trusts the person.
func (s *stack) asPerson() []string {
	return []string{"--certificate-identity", person, "--certificate-oidc-issuer", s.issuer.people(), "--trusted-root", s.rootPath}
}

// push publishes the model keyless and returns the pinned reference.
func (s *stack) push(t *testing.T, cli tool, ref, token string, args ...string) string {
	t.Helper()
	args = append([]string{"push", model(t), ref, "--keyless", "--identity-token", file(t, "token", []byte(token)),
		"--signing-config", s.cfgPath, "--trusted-root", s.rootPath}, args...)
	return strings.TrimSpace(cli.must(t, args...))
}

func TestKeylessPushIsPulledUnderTheIdentity(t *testing.T) {
	s, cli := sigstoreStack(t), command(t)
	ref := repository(t) + ":v1"
	pinned := s.push(t, cli, ref, s.issuer.person(person))
	for _, ref := range []string{ref, pinned} {
		cli.must(t, append([]string{"verify", ref}, s.asPerson()...)...)
	}
	cli.must(t, append([]string{"pull", ref, t.TempDir()}, s.asPerson()...)...)

	cli.must(t, "tag", pinned, "stable", "--keyless", "--identity-token", file(t, "token", []byte(s.issuer.person(person))),
		"--signing-config", s.cfgPath, "--trusted-root", s.rootPath)
	cli.must(t, append([]string{"verify", strings.Replace(ref, ":v1", ":stable", 1)}, s.asPerson()...)...)

	for what, args := range map[string][]string{
		"another person": {"--certificate-identity", "x" + person, "--certificate-oidc-issuer", s.issuer.people(), "--trusted-root", s.rootPath},
		"another issuer": {"--certificate-identity", person, "--certificate-oidc-issuer", s.issuer.workflows(), "--trusted-root", s.rootPath},
	} {
		if out, err := cli.run(t, append([]string{"verify", ref}, args...)...); err == nil {
			t.Errorf("%s: accepted\n%s", what, out)
		}
	}
}

// TestKeylessPolicyJudgesWorkflowLogAndTime: what Fulcio wrote into the
// certificate, one log entry, one timestamp and an age.
func TestKeylessPolicyJudgesWorkflowLogAndTime(t *testing.T) {
	s, cli := sigstoreStack(t), command(t)
	ref := repository(t) + ":v1"
	// A reusable workflow of one repository, called from another.
	s.push(t, cli, ref, s.issuer.workflow("acme/workflows/.github/workflows/train.yml@refs/tags/v1", "acme/llama", "4242"))

	principal := map[string]string{
		"issuer": s.issuer.workflows(), "subject": "https://github.com/acme/workflows/.github/workflows/train.yml@refs/tags/v1",
		"sourceRepository": "https://github.com/acme/llama", "sourceOwnerId": "4242", "sourceRef": "refs/heads/main", "trigger": "push",
	}
	policy := func(principal map[string]string, clauses map[string]any) []byte {
		require := map[string]any{"predicateType": provenance.PredicateSLSA, "signers": []string{"ci"}}
		for name, value := range clauses {
			require[name] = value
		}
		b, err := json.Marshal(map[string]any{
			"formatVersion": 1, "principals": map[string]any{"ci": principal},
			"rules": []any{map[string]any{"repositories": []string{"*"}, "require": []any{require}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	verify := func(text []byte) (string, error) {
		return cli.run(t, "verify", ref, "--policy", file(t, "policy.json", text), "--trusted-root", s.rootPath)
	}
	if _, err := verify(policy(principal, map[string]any{"minLogEntries": 1, "minTimestamps": 1, "maxAge": "1h"})); err != nil {
		t.Error(err)
	}
	for name, value := range map[string]any{"minLogEntries": 2, "minTimestamps": 2, "maxAge": "1ns"} {
		if _, err := verify(policy(principal, map[string]any{name: value})); err == nil || !strings.Contains(err.Error(), "needs") {
			t.Errorf("%s %v: got %v", name, value, err)
		}
	}
	for member, value := range principal {
		other := make(map[string]string)
		for k, v := range principal {
			other[k] = v
		}
		other[member] = value + "1"
		if _, err := verify(policy(other, nil)); err == nil || !strings.Contains(err.Error(), "signer") {
			t.Errorf("%s %q: got %v", member, other[member], err)
		}
	}
}

// TestKeyIsLoggedAndTimestamped: with a key, what the services prove counts once
// the reader says whose services.
func TestKeyIsLoggedAndTimestamped(t *testing.T) {
	s, cli := sigstoreStack(t), command(t)
	ref, keys := repository(t)+":v1", t.TempDir()
	cli.must(t, "keygen", "--out", keys)
	cli.must(t, "push", model(t), ref, "--sign-key", keys+"/signing.key", "--signing-config", s.cfgPath, "--trusted-root", s.rootPath)
	cli.must(t, "verify", ref, "--key", keys+"/signing.pub")

	pub, err := json.Marshal(readFile(t, keys+"/signing.pub"))
	if err != nil {
		t.Fatal(err)
	}
	policy := file(t, "policy.json", []byte(`{"formatVersion": 1, "principals": {"release": {"key": `+string(pub)+`}}, "rules": [{"repositories": ["*"],
		"require": [{"predicateType": "https://slsa.dev/provenance/v1", "signers": ["release"], "minLogEntries": 1, "minTimestamps": 1}]}]}`))
	cli.must(t, "verify", ref, "--policy", policy, "--trusted-root", s.rootPath)
	if _, err := cli.run(t, "verify", ref, "--policy", policy); err == nil || !strings.Contains(err.Error(), "verified log entr") {
		t.Errorf("without a trusted root: got %v, want a refusal for want of a log entry", err)
	}
}
