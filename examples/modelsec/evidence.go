// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
	"github.com/modelsec/modelsec-go/registry"
)

const maxEvidenceFile = 64 << 20 // as POLICY.md §8 has it

const exportLong = `export judges a model as verify does and writes all that the decision rests on into
one file: manifest, attestations, denial lists, trusted roots, policy and report.
modelsec verify --evidence FILE makes the decision again, on any machine and without
a network. A refusal is exported too.

With a signer whose signatures are stamped, the time of the decision is proven; else
it reads "claimed".`

// exportResult is the JSON form of what export wrote.
type exportResult struct {
	Ref      string             `json:"ref"`
	Evidence string             `json:"evidence"`
	Digest   digest.Digest      `json:"digest"` // of the file
	Report   *provenance.Report `json:"report"`
}

func (t *tool) exportCommand() *cobra.Command {
	var x trust
	var sign signFlags
	c := &cobra.Command{
		Use:     "export REF FILE",
		Short:   "Write the evidence of a decision into one file",
		Long:    exportLong,
		Example: "  modelsec export registry.example.com/team/llama:v3 evidence.json --policy policy.json",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return t.export(c.Context(), args[0], args[1], x, sign)
		},
	}
	x.define(c)
	sign.define(c, &x)
	return c
}

func (t *tool) export(ctx context.Context, target, path string, x trust, sign signFlags) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return err
	}
	defer done()
	var o modelsec.ExportOptions
	if o.Signer, _, err = sign.load(ctx, t); err != nil {
		return err
	}
	for _, root := range x.roots {
		b, err := readFile(root, maxRootFile)
		if err != nil {
			return err
		}
		o.Roots = append(o.Roots, b)
	}
	file, report, refusal := client.Export(ctx, target, policy, &o)
	done()
	if file == nil {
		return refusal
	}
	if err := os.WriteFile(path, file, 0o644); err != nil {
		return err
	}
	if refusal != nil {
		t.say("the refusal was written to %s", path)
		return refusal
	}
	t.explain(report)
	out := exportResult{Ref: at(ref, report.Manifest), Evidence: path, Digest: digest.FromBytes(file), Report: report}
	return t.pinnedResult(out, out.Ref)
}

// evidenceResult is the JSON form of what an evidence file shows.
type evidenceResult struct {
	Ref    string             `json:"ref"`
	Digest digest.Digest      `json:"digest"`
	AsOf   time.Time          `json:"asOf"`
	Time   string             `json:"time"` // "proven" or "claimed"
	Policy digest.Digest      `json:"policy"`
	Roots  []digest.Digest    `json:"roots"`
	Report *provenance.Report `json:"report"`
}

// verifyEvidence makes the decision of a file again. Whom to trust is in the
// file, unless flags say otherwise.
func (t *tool) verifyEvidence(ctx context.Context, path string, x trust) error {
	file, err := readFile(path, maxEvidenceFile)
	if err != nil {
		return err
	}
	var o modelsec.EvidenceOptions
	if x.given() {
		policy, err := x.load(registry.Reference{Name: path})
		if err != nil {
			return err
		}
		o.Policy = &policy
	}
	o.Verifiers = func(roots [][]byte) ([]provenance.Verifier, error) {
		for i, root := range x.roots {
			b, err := readFile(root, maxRootFile)
			if err != nil {
				return nil, err
			}
			if i == 0 {
				roots = nil
			}
			roots = append(roots, b)
		}
		if len(roots) == 0 {
			return nil, nil
		}
		v, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: roots})
		if err != nil {
			return nil, err
		}
		return []provenance.Verifier{v}, nil
	}
	v, err := modelsec.VerifyEvidence(ctx, file, &o)
	if v != nil && v.Report != nil {
		t.say("judged as of %s (%s)", v.AsOf.Format(time.RFC3339), v.Time)
		t.say("under policy %s", v.Report.Policy)
		for _, root := range v.Roots {
			t.say("with trusted root %s in the file", root)
		}
	}
	if err != nil {
		return err
	}
	t.explain(v.Report)
	out := evidenceResult{Ref: v.Report.Reference + "@" + string(v.Report.Manifest), Digest: v.Report.Manifest, AsOf: v.AsOf, Time: v.Time,
		Policy: v.Report.Policy, Roots: append([]digest.Digest{}, v.Roots...), Report: v.Report}
	return t.pinnedResult(out, out.Ref)
}
