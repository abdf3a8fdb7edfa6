// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/provenance"
)

const denyLong = `deny signs a denial list: what policies that heed it must not admit any more. The list
is a file in the form of docs/POLICY.md §7; its sequence must be higher than that of
the list before, or readers go on heeding that one.

REF, a repository and tag, is the source that policies name. Without a network,
--out writes the signed list to a file, which readers give with --bundle.

The key should sign nothing else: policies refuse who could lift his own denial.`

// denyResult is the JSON form of what was signed.
type denyResult struct {
	Name     string        `json:"name"`
	Sequence uint64        `json:"sequence"`
	Entries  int           `json:"entries"`
	Ref      string        `json:"ref,omitempty"`
	File     string        `json:"file,omitempty"`
	Digest   digest.Digest `json:"digest"` // of the manifest, or of the file
}

func (t *tool) denyCommand() *cobra.Command {
	var sign signFlags
	var list, out string
	c := &cobra.Command{
		Use:     "deny [REF] --list F --sign-key F",
		Short:   "Sign a list of what must not be used any more",
		Long:    denyLong,
		Example: "  modelsec deny registry.example.com/security/denials:latest --list denials.json --sign-key security.key",
		Args: func(c *cobra.Command, args []string) error {
			if out != "" {
				return cobra.NoArgs(c, args)
			}
			return cobra.ExactArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return t.deny(c.Context(), args, list, out, sign)
		},
	}
	sign.define(c, nil)
	c.Flags().StringVar(&list, "list", "", "`file` with the list")
	c.Flags().StringVar(&out, "out", "", "`file` to write the signed list to, instead of a registry")
	require(c, "list")
	c.MarkFlagsOneRequired("sign-key", "keyless")
	return c
}

func (t *tool) deny(ctx context.Context, args []string, list, out string, sign signFlags) error {
	text, err := readFile(list, maxPredicate)
	if err != nil {
		return err
	}
	l, err := provenance.ParseDenials(provenance.Statement{PredicateType: provenance.PredicateDenials, Predicate: text})
	if err != nil {
		return usagef("%s: %w", list, err)
	}
	signer, _, err := sign.load(ctx, t)
	if err != nil {
		return err
	}
	result := denyResult{Name: l.Name, Sequence: l.Sequence, Entries: len(l.Entries)}
	if out != "" {
		if result.Digest, err = writeDenials(ctx, out, signer, l); err != nil {
			return err
		}
		result.File = out
		return t.pinnedResult(result, out)
	}
	ref, err := t.version(args[0])
	if err != nil {
		return err
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	d, err := client.PublishDenials(ctx, args[0], signer, l)
	done()
	if err != nil {
		return err
	}
	result.Digest, result.Ref = d.Digest, at(ref, d.Digest)
	return t.pinnedResult(result, result.Ref)
}

func writeDenials(ctx context.Context, path string, signer provenance.Signer, l provenance.DenialList) (digest.Digest, error) {
	st, err := provenance.NewDenials(l)
	if err != nil {
		return "", err
	}
	payload, err := st.Encode(l.Subject())
	if err != nil {
		return "", err
	}
	b, err := signer.Sign(ctx, provenance.PayloadType, payload)
	if err != nil {
		return "", err
	}
	return digest.FromBytes(b.Bytes()), os.WriteFile(path, b.Bytes(), 0o644)
}
