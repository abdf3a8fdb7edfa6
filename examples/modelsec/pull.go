// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

const verifyLong = `verify says whether a policy admits a model, without opening it: the dry run of
pull. It prints the reference with the digest that was judged; give that to pull,
and no tag can move in between.

--deep reads the whole content as well and compares it with every digest. No key
is needed for that.

--evidence makes the decision of a file again that export wrote, from nothing but
the file. Its policy and its trusted roots are used unless flags give others.`

const pullLong = `pull fetches a model that a policy admits. The directory must be absent or empty,
and shows nothing before every byte was verified. A pull that was interrupted goes
on where it stopped.`

// readResult is the JSON form of what verify and pull found.
type readResult struct {
	Ref    string             `json:"ref"`
	Digest digest.Digest      `json:"digest"`
	Dir    string             `json:"dir,omitempty"`
	Deep   bool               `json:"deep,omitempty"`
	Report *provenance.Report `json:"report"`
}

func (t *tool) verifyCommand() *cobra.Command {
	var x trust
	var deep bool
	var evidence string
	c := &cobra.Command{
		Use:     "verify REF",
		Short:   "Say whether a policy admits a model",
		Long:    verifyLong,
		Example: "  modelsec verify registry.example.com/team/llama:v3 --key signing.pub",
		Args: func(c *cobra.Command, args []string) error {
			if evidence != "" {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			if evidence != "" {
				return t.verifyEvidence(c.Context(), evidence, x)
			}
			return t.verify(c.Context(), args[0], x, deep)
		},
	}
	x.define(c)
	c.Flags().StringVar(&evidence, "evidence", "", "evidence `file` to judge again, instead of a reference")
	c.Flags().BoolVar(&deep, "deep", false, "read the whole content and compare it with every digest")
	c.MarkFlagsMutuallyExclusive("evidence", "deep")
	return c
}

func (t *tool) verify(ctx context.Context, target string, x trust, deep bool) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return err
	}
	defer done()
	judge := client.Verify
	if deep {
		judge = client.VerifyDeep
	}
	report, err := judge(ctx, target, policy)
	if err != nil {
		return err
	}
	done()
	out := readResult{Ref: at(ref, report.Manifest), Digest: report.Manifest, Deep: deep, Report: report}
	t.explain(report)
	return t.pinnedResult(out, out.Ref)
}

// explain prints the report for people, unless it is in the JSON.
func (t *tool) explain(r *provenance.Report) {
	if !t.json {
		fmt.Fprint(t.stderr, r)
	}
}

func (t *tool) pullCommand() *cobra.Command {
	var x trust
	var ids identityFlags
	var only modelsec.ExtractOptions
	c := &cobra.Command{
		Use:     "pull REF DIR",
		Short:   "Fetch a model that a policy admits",
		Long:    pullLong,
		Example: "  modelsec pull registry.example.com/team/llama:v3 ./llama --key signing.pub --identity identity.key",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return t.pull(c.Context(), args[0], args[1], x, ids, &only)
		},
	}
	x.define(c)
	ids.define(c)
	c.Flags().StringArrayVar(&only.Include, "include", nil, "only files that match this `glob` (may be repeated)")
	c.Flags().StringArrayVar(&only.Files, "file", nil, "only the file of this `path`, which must be there: all that a grant of some files opens\n(may be repeated)")
	return c
}

func (t *tool) pull(ctx context.Context, target, dir string, x trust, ids identityFlags, only *modelsec.ExtractOptions) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return err
	}
	defer done()
	if client.Identities, err = ids.load(ctx, t); err != nil {
		return err
	}
	report, err := client.Pull(ctx, target, dir, policy, only)
	if err != nil {
		return ids.missing(err)
	}
	done()
	out := readResult{Ref: at(ref, report.Manifest), Digest: report.Manifest, Dir: dir, Report: report}
	t.explain(report)
	return t.pinnedResult(out, out.Ref)
}
