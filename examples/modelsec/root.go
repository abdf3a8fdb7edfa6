// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/registry"
)

// tool is one run of the command: its streams, the global flags, and what the
// verb that runs has told about itself so far.
type tool struct {
	stdin          *os.File
	stdout, stderr io.Writer

	json        bool
	plainHTTP   bool
	caFile      string
	concurrency int
	memory      size
	progress    progressMode

	started bool               // arguments were understood and the verb runs
	verb    string             // of the verb that runs; hints depend on it
	path    string             // the command that failed, as modelsec push
	ref     registry.Reference // what it works on
}

const rootLong = `modelsec publishes model weights to an OCI registry, encrypted and attested,
and gives out only those that a policy admits.

A reference is host/path[:tag][@sha256:digest], or oci:DIR[:tag][@sha256:digest]
for an image layout on disk. There is no default host. Credentials are those of
docker login and podman login.

The policy is that of --policy, or of --key and --certificate-identity, else the file that MODELSEC_POLICY names.
Results go to standard output, everything else to standard error.

Exit status:
  0    done
  1    failed for another reason than those below
  2    usage: arguments, a policy or a key file that cannot be used
  3    refused by the policy, or the artifact failed verification
  4    no key opens the artifact, or a key service refuses
  5    registry, key service or network
  130  interrupted`

func (t *tool) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "modelsec",
		Short: "Publish encrypted, attested model weights, and load only those",
		Long:  rootLong,
		// Errors are printed in one place, which knows their status.
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(t.stdin)
	root.SetOut(t.stdout)
	root.SetErr(t.stderr)

	f := root.PersistentFlags()
	f.BoolVar(&t.json, "json", false, "print the result, or the error, as one JSON object on standard output")
	f.BoolVar(&t.plainHTTP, "plain-http", false, "speak HTTP without TLS to the hosts of the references (loopback needs no flag)")
	f.StringVar(&t.caFile, "ca-file", "", "PEM `file` of further certificate authorities for the hosts of the references")
	f.IntVar(&t.concurrency, "concurrency", 0, "connections to one registry (default 16)")
	f.Var(&t.memory, "memory", "memory for buffers, as in 256MiB (default 128MiB, less in a small container)")
	f.Var(&t.progress, "progress", "auto, plain, json or none, on standard error")
	t.complete(root, "progress", progressModes...)

	t.add(root,
		t.keygenCommand(), t.pushCommand(), t.verifyCommand(), t.pullCommand(), t.execCommand(), t.serveCommand(), t.inspectCommand(),
		t.attestCommand(), t.summariseCommand(), t.exportCommand(), t.lineageCommand(), t.tagCommand(), t.tagsCommand(),
		t.grantCommand(), t.grantsCommand(), t.revokeCommand(), t.denyCommand(),
		t.copyCommand(), t.trustedRootCommand(), t.doctorCommand(), t.versionCommand())
	root.AddCommand(t.omsCommand())
	return root
}

// add adds the verbs and notes when one begins: what fails before is usage.
func (t *tool) add(root *cobra.Command, verbs ...*cobra.Command) {
	for _, c := range verbs {
		run := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error {
			t.started, t.verb = true, c.Name()
			if t.concurrency < 0 {
				return usagef("--concurrency %d: want at least 1", t.concurrency)
			}
			t.boundMemory()
			return run(c, args)
		}
		root.AddCommand(c)
	}
}

// complete offers the values of a flag to shell completion.
func (t *tool) complete(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag was not defined before
	}
}
