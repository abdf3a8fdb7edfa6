// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const copyLong = `cp copies a model with its attestations, byte for byte: between registries, and to
and from a layout on disk. Every layer is compared with its digests on the way. No
key is needed, and an encrypted model stays encrypted.

Grants stay behind unless --grants all says otherwise, since a copy is often made
for somebody else. With --key or --policy the model is copied only if it passes.`

var grantModes = []string{string(modelsec.CopyNoGrants), string(modelsec.CopyAllGrants)}

// copyResult is the JSON form of what cp did.
type copyResult struct {
	Source string        `json:"source"`
	Ref    string        `json:"ref"`
	Digest digest.Digest `json:"digest"`
	Grants string        `json:"grants"`
}

func (t *tool) copyCommand() *cobra.Command {
	var x trust
	var grants string
	c := &cobra.Command{
		Use:     "cp SRC DST",
		Short:   "Copy a model with its attestations",
		Long:    copyLong,
		Example: "  modelsec cp registry.example.com/team/llama:v3 oci:./llama-layout:v3 --grants all",
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return t.copy(c.Context(), args[0], args[1], x, grants)
		},
	}
	x.define(c)
	c.Flags().StringVar(&grants, "grants", grantModes[0], "`none|all`: whether the copy can be opened by those who can open the original")
	t.complete(c, "grants", grantModes...)
	return c
}

func (t *tool) copy(ctx context.Context, source, target string, x trust, grants string) error {
	from, err := t.version(source)
	if err != nil {
		return err
	}
	to, err := registry.ParseReference(target)
	if err != nil {
		return usage(err)
	}
	if !slices.Contains(grantModes, grants) {
		return usagef("--grants %q: want none or all", grants)
	}
	options := &modelsec.CopyOptions{Grants: modelsec.CopyGrants(grants)}
	var policy provenance.Policy
	if x.given() {
		if policy, err = x.load(from); err != nil {
			return err
		}
		options.Policy = &policy
	}
	client, done, err := t.client(from, to)
	if err != nil {
		return err
	}
	defer done()
	if err = x.apply(client, policy); err != nil {
		return err
	}
	d, err := client.Copy(ctx, target, source, options)
	if err != nil {
		return err
	}
	done()
	out := copyResult{Source: at(from, d.Digest), Ref: at(to, d.Digest), Digest: d.Digest, Grants: grants}
	return t.pinnedResult(out, out.Ref)
}
