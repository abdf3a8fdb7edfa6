// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
)

const summariseLong = `summarise judges a model as verify does and, where the policy admits it, signs a SLSA
verification summary (VSA) and attaches it. Readers whose policy trusts the verifier
then check that one statement. Nothing is signed about a model that is refused.

The key should sign nothing else: policies refuse a verifier who is also a publisher.`

// summariseResult is the JSON form of what was attached.
type summariseResult struct {
	Ref      string        `json:"ref"`
	Referrer digest.Digest `json:"referrer"`
}

func (t *tool) summariseCommand() *cobra.Command {
	var x trust
	var sign signFlags
	var o modelsec.SummaryOptions
	c := &cobra.Command{
		Use:     "summarise REF@DIGEST --policy F --sign-key F --verifier URI",
		Short:   "Verify for others, and sign a summary",
		Long:    summariseLong,
		Example: "  modelsec summarise registry.example.com/team/llama@sha256:… --policy policy.json --sign-key gate.key --verifier https://gate.example.com/v1",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.summarise(c.Context(), args[0], x, sign, o)
		},
	}
	x.define(c)
	sign.define(c, &x)
	c.Flags().StringVar(&o.Verifier, "verifier", "", "`URI` by which policies know this verifier")
	c.Flags().StringVar(&o.PolicyURI, "policy-uri", "", "`URI` where the policy can be found")
	require(c, "verifier")
	c.MarkFlagsOneRequired("sign-key", "keyless")
	return c
}

func (t *tool) summarise(ctx context.Context, target string, x trust, sign signFlags, o modelsec.SummaryOptions) error {
	ref, err := t.pinned(target)
	if err != nil {
		return err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return err
	}
	defer done()
	if o.Signer, _, err = sign.load(ctx, t); err != nil {
		return err
	}
	d, err := client.Summarise(ctx, target, policy, o)
	done()
	if err != nil {
		return err
	}
	t.say("attached as %s", d.Digest)
	return t.pinnedResult(summariseResult{Ref: ref.String(), Referrer: d.Digest}, ref.String())
}
