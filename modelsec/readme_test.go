// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"crypto"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// The Go snippets of README.md are the regions of this file, so the compiler
// reads them too.

func readmeFirst(ctx context.Context, identity encrypt.Identity, team encrypt.Recipient, teamKey crypto.PublicKey, signer provenance.Signer, slsa provenance.Statement) error {
	// readme: first
	c := modelsec.Client{Identities: []encrypt.Identity{identity}}
	policy := provenance.RequireKey(teamKey, provenance.PredicateRelease, provenance.PredicateSLSA)

	d, err := c.Push(ctx, "registry.example.com/team/llama:v3", os.DirFS("llama"), &modelsec.PushOptions{
		Signer: signer, Statements: []provenance.Statement{slsa}, Recipients: []encrypt.Recipient{team},
	})
	if err != nil {
		return err
	}
	report, err := c.Pull(ctx, "registry.example.com/team/llama:v3", "/models/llama", policy, nil)
	// readme: end
	_, _ = d, report
	return err
}

func readmeLoad(ctx context.Context, c *modelsec.Client, ref string, policy provenance.Policy, arena map[string][]byte) error {
	// readme: load
	m, err := c.Open(ctx, ref, policy)
	if err != nil {
		return err // *provenance.PolicyError carries a report: which clause refused, what would satisfy it
	}
	defer m.Close()
	tensors, err := m.Tensors(ctx) // Slice them for a rank: only the segments that it touches are fetched.
	if err != nil {
		return err
	}
	err = m.LoadTensors(ctx, tensors, modelsec.TensorSink{Alloc: func(t modelsec.Tensor) ([]byte, error) {
		arena[t.Name] = make([]byte, t.Size)
		return arena[t.Name], nil
	}})
	// readme: end
	return err
}

func readmeGrant(ctx context.Context, c *modelsec.Client, ref string, policy provenance.Policy, customer encrypt.Recipient, signer provenance.Signer) error {
	// readme: grant
	_, err := c.Grant(ctx, ref, policy, []encrypt.Recipient{customer}, &modelsec.GrantOptions{
		NotAfter: time.Now().AddDate(1, 0, 0), Signer: signer,
	})
	// readme: end
	return err
}

func TestReadmeSnippetsAreCompiled(t *testing.T) {
	_ = []any{readmeFirst, readmeLoad, readmeGrant}
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	compiled := make(map[string]bool)
	for _, part := range strings.Split(string(source), "\t// readme: ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		if name != "end" {
			compiled[strings.TrimSpace(dedent(body))] = true
		}
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	snippets := strings.Split(string(readme), "```go\n")[1:]
	if len(snippets) == 0 {
		t.Error("README.md has no Go snippet")
	}
	for _, s := range snippets {
		code, _, _ := strings.Cut(s, "```")
		if !compiled[strings.TrimSpace(code)] {
			t.Errorf("no region of readme_test.go is this snippet of README.md:\n%s", code)
		}
	}
}

// dedent removes the one tab that a function body has.
func dedent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "\t")
	}
	return strings.Join(lines, "\n")
}
