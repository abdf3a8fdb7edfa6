// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

const lineageLong = `lineage draws what a model was made from: base models, adapters, datasets and
builders. Each artifact on the way is judged under the policy, whose member lineage
says in which repositories they may be looked at (docs/POLICY.md §1.6); no content is
read. Where a link is broken it is named, and the command fails.

--dot draws for Graphviz: modelsec lineage REF --policy F --dot | dot -Tsvg`

func (t *tool) lineageCommand() *cobra.Command {
	var x trust
	var dot bool
	c := &cobra.Command{
		Use:     "lineage REF --policy F",
		Short:   "Draw what a model was made from",
		Long:    lineageLong,
		Example: "  modelsec lineage registry.example.com/team/llama-q4:v1 --policy policy.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.lineage(c.Context(), args[0], x, dot)
		},
	}
	x.define(c)
	c.Flags().BoolVar(&dot, "dot", false, "draw in the language of Graphviz")
	return c
}

// lineage prints what was found also where a link is broken: the drawing shows
// where. With --json there is one object, which is then the error.
func (t *tool) lineage(ctx context.Context, target string, x trust, dot bool) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return err
	}
	defer done()
	l, err := client.Lineage(ctx, target, policy)
	done()
	if l == nil || err != nil && t.json {
		return err
	}
	draw := l.String
	if dot {
		draw = l.DOT
	}
	if printed := t.result(l, func(w io.Writer) { io.WriteString(w, draw()) }); printed != nil {
		return printed
	}
	return err
}
