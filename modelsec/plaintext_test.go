// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// comparing is a policy that compares content with its plaintext root.
func (p *party) comparing(t testing.TB) provenance.Policy {
	policy := p.policy()
	policy.Rules[0].Plaintext = &provenance.PlaintextRule{Signers: []provenance.Principal{p.principal(t)}, Compare: true}
	return policy
}

func TestK18ContentIsComparedWithItsRootBeforeItIsVisible(t *testing.T) {
	p := newParty(t)
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			memory := registry.NewMemory()
			c := p.client(memory)
			o := options()
			root := must(modelsec.PlaintextRoot(t.Context(), large(), o))
			o.Statements = []provenance.Statement{must(provenance.NewPlaintext(provenance.Plaintext{Root: root}))}
			push(t, c, tagged, large(), o)
			dir := filepath.Join(t.TempDir(), "model")
			report, err := c.Pull(t.Context(), tagged, dir, p.comparing(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			if report.Plaintext != "compared" || len(report.Plaintexts) != 1 || report.Plaintexts[0] != root {
				t.Errorf("got %q, %q", report.Plaintext, report.Plaintexts)
			}
			sameFiles(t, dir, large())

			o.Statements = []provenance.Statement{must(provenance.NewPlaintext(provenance.Plaintext{Root: digestOf([]byte("other"))}))}
			const other = "registry.example.com/team/other:v3"
			push(t, c, other, large(), o)
			err = pullFails(t, c, other, p.comparing(t), modelsec.ErrDigest)
			contains(t, err, "plaintext root")
			// Who takes the signer's word is not told that it was compared.
			trusting := p.comparing(t)
			trusting.Rules[0].Plaintext.Compare = false
			if report, err = c.Verify(t.Context(), other, trusting); err != nil || report.Plaintext != "asserted by signer" {
				t.Errorf("got %v, %v", report, err)
			}
		})
	}
}

func TestK18PartsOfAComparedModelAreRefused(t *testing.T) {
	p := newParty(t)
	c := p.client(registry.NewMemory())
	o := p.options(p.recipients())
	root := must(modelsec.PlaintextRoot(t.Context(), small(), o))
	o.Statements = []provenance.Statement{must(provenance.NewPlaintext(provenance.Plaintext{Root: root}))}
	push(t, c, tagged, small(), o)
	m := must(c.Open(t.Context(), tagged, p.comparing(t)))
	defer m.Close()
	if _, err := m.ReaderAt(t.Context(), "config.json"); err == nil {
		t.Error("a reader was given")
	}
	if b, err := fs.ReadFile(m.FS(t.Context()), "config.json"); err == nil || len(b) > 0 {
		t.Errorf("%d bytes were read", len(b))
	}
	if _, err := m.Memfd(t.Context(), "config.json"); err == nil {
		t.Error("a memory file was given")
	}
	if _, err := m.Tensors(t.Context()); err == nil {
		t.Error("tensors were listed")
	}
	dir := filepath.Join(t.TempDir(), "model")
	err := m.Extract(t.Context(), dir, &modelsec.ExtractOptions{Include: []string{"config.json"}})
	refused(t, err, modelsec.ErrConfig)
	absent(t, dir)
	if err := m.Extract(t.Context(), dir, nil); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, dir, small())
}

// TestK19ABuildersBundleIsCarriedAsHeSignedIt: he attested the plain artifact,
// the publisher encrypted it, and the policy names both.
func TestK19ABuildersBundleIsCarriedAsHeSignedIt(t *testing.T) {
	builder, publisher := newParty(t), newParty(t)
	c := publisher.client(registry.NewMemory())
	plain := push(t, c, "registry.example.com/build/llama:v3", large(), builder.options(nil))
	bundle := signed(t, builder, plain.Digest, slsa(t))
	o := publisher.options(publisher.recipients())
	root := must(modelsec.PlaintextRoot(t.Context(), large(), o))
	d := push(t, c, tagged, large(), o)
	_, err := c.Attach(t.Context(), pinned(d), bundle)
	refused(t, err, modelsec.ErrConfig)
	bound := must(provenance.NewPlaintext(provenance.Plaintext{Root: root, Manifest: plain.Digest}))
	if _, err := c.Attest(t.Context(), pinned(d), publisher.signer, bound); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), pinned(d), bundle); err != nil {
		t.Fatal(err)
	}
	policy := publisher.comparing(t)
	policy.Rules[0].Require = append(policy.Rules[0].Require, provenance.Requirement{PredicateType: provenance.PredicateSLSA,
		Signers: []provenance.Principal{builder.principal(t)}, Plaintext: true})
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := c.Pull(t.Context(), tagged, dir, policy, nil); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, dir, large())
	policy.Rules[0].Require[1].Plaintext = false
	pullFails(t, c, tagged, policy, errPolicy)
}
