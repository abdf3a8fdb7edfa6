// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
)

// inspectResult is the JSON form of what a model says of itself.
type inspectResult struct {
	Ref          string               `json:"ref"`
	Verified     bool                 `json:"verified"` // always false
	Digest       digest.Digest        `json:"digest"`
	Encrypted    bool                 `json:"encrypted"`
	Indexed      bool                 `json:"indexed"`
	Layers       int                  `json:"layers"`
	Bytes        int64                `json:"bytes"`
	Sequence     uint64               `json:"sequence"`
	Files        []inspectFile        `json:"files"`
	Attestations []inspectAttestation `json:"attestations"`
	Grants       int                  `json:"grants"`
}

type inspectFile struct {
	Name string `json:"name"`
	Role string `json:"role"`
	Size int64  `json:"size"`
}

type inspectAttestation struct {
	PredicateType string        `json:"predicateType"`
	Referrer      digest.Digest `json:"referrer"`
}

func (t *tool) inspectCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect REF",
		Short: "Show what a model says of itself, unverified",
		Long:  "inspect shows what a model says of itself. No signature is verified: use it to\nlook, and verify to decide.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.inspect(c.Context(), args[0])
		},
	}
}

func (t *tool) inspect(ctx context.Context, target string) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	info, err := client.Inspect(ctx, target)
	done()
	if err != nil {
		return err
	}
	out := inspection(info)
	out.Ref = at(ref, info.Descriptor.Digest)
	return t.result(out, out.print)
}

// inspection makes what others wrote fit to be shown, also by those who print
// a member of the JSON on a terminal.
func inspection(info *modelsec.Info) *inspectResult {
	out := &inspectResult{
		Digest: info.Descriptor.Digest, Encrypted: info.Encrypted, Indexed: info.Indexed,
		Layers: info.Layers, Bytes: info.Bytes, Sequence: info.Sequence, Grants: info.Grants,
		Files: []inspectFile{}, Attestations: []inspectAttestation{},
	}
	for _, f := range info.Files {
		out.Files = append(out.Files, inspectFile{Name: visible(f.Name), Role: visible(f.Role), Size: f.Size})
	}
	for _, a := range info.Attestations {
		out.Attestations = append(out.Attestations, inspectAttestation{PredicateType: visible(a.PredicateType), Referrer: a.Descriptor.Digest})
	}
	return out
}

func (r *inspectResult) print(w io.Writer) {
	fmt.Fprintln(w, "UNVERIFIED: what the artifact says of itself; modelsec verify decides")
	profile := "plain"
	if r.Encrypted {
		profile = "encrypted"
	}
	if !r.Indexed {
		profile = "of another tool, without an index"
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "reference\t%s\n", r.Ref)
	fmt.Fprintf(table, "profile\t%s\n", profile)
	fmt.Fprintf(table, "content\t%s in %s\n", bytesText(r.Bytes), plural(r.Layers, "layer"))
	if r.Sequence > 0 {
		fmt.Fprintf(table, "sequence\t%d\n", r.Sequence)
	}
	for _, a := range r.Attestations {
		fmt.Fprintf(table, "statement\t%s\n", a.PredicateType)
	}
	if r.Encrypted {
		fmt.Fprintf(table, "grants\t%s\n", plural(r.Grants, "document"))
		fmt.Fprintf(table, "files\tsealed: their names and sizes show after pull\n")
	}
	for _, f := range r.Files {
		fmt.Fprintf(table, "%s\t%s\t%s\n", f.Role, f.Name, bytesText(f.Size))
	}
	table.Flush()
}
