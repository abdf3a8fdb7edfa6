// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/registry"
)

const doctorLong = `doctor looks at everything a push or a pull depends on: the registry and what it can
do, and this machine. Give it the reference, and the key files if you like, that the
command that fails was given.

Nothing is changed, unless --write asks for a small untagged manifest to be pushed
and deleted again. A registry that does not delete keeps it.`

// Results of a check.
const (
	checkOK      = "ok"
	checkWarn    = "warn"
	checkFail    = "fail"
	checkUnknown = "unknown" // could not be found out, or not without --write
)

// check is the JSON form of one check.
type check struct {
	Name   string `json:"name"`
	Result string `json:"result"`
	Found  string `json:"found"`
	Next   string `json:"next,omitempty"` // the next step, where there is one
}

// doctorResult is the JSON form of all checks.
type doctorResult struct {
	Ref    string  `json:"ref"`
	OK     bool    `json:"ok"` // no check failed
	Checks []check `json:"checks"`
}

type doctorFlags struct {
	trust      trust
	identities identityFlags
	signKey    string
	write      bool
}

func (t *tool) doctorCommand() *cobra.Command {
	var o doctorFlags
	c := &cobra.Command{
		Use:     "doctor REF",
		Short:   "Find out why a push or a pull does not work",
		Long:    doctorLong,
		Example: "  modelsec doctor registry.example.com/team/llama:v3 --key signing.pub --identity identity.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.doctor(c.Context(), args[0], o)
		},
	}
	o.trust.define(c)
	o.identities.define(c)
	c.Flags().StringVar(&o.signKey, "sign-key", "", "private key `file` to sign with")
	c.Flags().BoolVar(&o.write, "write", false, "push and delete a small manifest")
	return c
}

// examination collects the checks.
type examination struct {
	t      *tool
	ref    registry.Reference
	checks []check
}

func (x *examination) note(name, result, next, found string, args ...any) {
	x.checks = append(x.checks, check{Name: name, Result: result, Found: oneLine(fmt.Sprintf(found, args...)), Next: oneLine(next)})
}

// failed notes an error with the hint that a verb would have given.
func (x *examination) failed(name string, err error) {
	status := x.t.status(context.Background(), err)
	x.note(name, checkFail, x.t.hint(status, err), "%v", err)
}

func (t *tool) doctor(ctx context.Context, target string, o doctorFlags) error {
	ref, err := t.reference(target)
	if err != nil {
		return err
	}
	x := &examination{t: t, ref: ref}
	if err := x.remote(ctx, o.write); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	remote := len(x.checks)
	x.machine()
	x.keys(ctx, o)

	out := doctorResult{Ref: ref.String(), OK: true, Checks: x.checks}
	status := statusDone
	for i, c := range x.checks {
		if c.Result != checkFail {
			continue
		}
		out.OK = false
		switch {
		case i < remote:
			status = statusRegistry
		case status == statusDone:
			status = statusUsage
		}
	}
	if err := t.result(out, out.print); err != nil {
		return err
	}
	if !out.OK {
		return &failure{err: errors.New("a check failed"), status: status, told: true}
	}
	return nil
}

func (r doctorResult) print(w io.Writer) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range r.Checks {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Result, c.Name, c.Found)
		if c.Next != "" {
			fmt.Fprintf(table, "\t\t→ %s\n", c.Next)
		}
	}
	table.Flush()
}
