// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
)

const execLong = `exec opens a model that a policy admits, puts files of it into sealed memory and
runs a command that inherits them: no plaintext is written to a disk, and nobody
can change the files any more. Linux only.

MODELSEC_FILES tells the command, as a JSON object, the descriptor of every file;
/proc/self/fd/N is its path. Without --file all files are given. The memory of
the files is needed at once. exec ends with the command, and as it did.`

// filesVariable names the descriptors for the command.
const filesVariable = "MODELSEC_FILES"

// firstDescriptor is that of the first file, after the three streams.
const firstDescriptor = 3

// endTime is how long a command may take to end when exec is told to.
const endTime = 10 * time.Second

func (t *tool) execCommand() *cobra.Command {
	var x trust
	var ids identityFlags
	var names []string
	c := &cobra.Command{
		Use:     "exec REF -- COMMAND [ARG…]",
		Short:   "Run a command that reads a model from sealed memory",
		Long:    execLong,
		Example: "  modelsec exec registry.example.com/team/llama:v3 --key signing.pub --identity identity.key -- python3 serve.py",
		Args: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("want a reference, -- and a command")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			return t.exec(c.Context(), args[0], args[1:], x, ids, names)
		},
	}
	x.define(c)
	ids.define(c)
	c.Flags().StringArrayVar(&names, "file", nil, "only the file of this `path` (may be repeated)")
	return c
}

func (t *tool) exec(ctx context.Context, target string, command []string, x trust, ids identityFlags, names []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return usage(err)
	}
	files, err := t.sealed(ctx, target, x, ids, names)
	if err != nil {
		return err
	}
	descriptors := make(map[string]int)
	child := exec.CommandContext(ctx, path, command[1:]...)
	child.Args[0] = command[0]
	for i, f := range files {
		defer f.Close()
		child.ExtraFiles = append(child.ExtraFiles, f.File)
		descriptors[f.name] = firstDescriptor + i
	}
	told, err := json.Marshal(descriptors)
	if err != nil {
		return err
	}
	child.Env = append(os.Environ(), filesVariable+"="+string(told))
	child.Stdin, child.Stdout, child.Stderr = t.stdin, t.stdout, t.stderr
	child.Cancel = func() error { return child.Process.Signal(syscall.SIGTERM) }
	child.WaitDelay = endTime
	err = child.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return &failure{err: err, status: exitStatus(ended), told: true}
	}
	return err
}

// exitStatus is that of a command, as a shell tells it.
func exitStatus(ended *exec.ExitError) int {
	if s, ok := ended.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return 128 + int(s.Signal())
	}
	return ended.ExitCode()
}

// sealedFile is a file of a model in sealed memory.
type sealedFile struct {
	*os.File
	name string
}

// sealed opens a model, puts files of it into sealed memory and closes it, so
// that no key is left when the command runs.
func (t *tool) sealed(ctx context.Context, target string, x trust, ids identityFlags, names []string) (files []sealedFile, err error) {
	ref, err := t.version(target)
	if err != nil {
		return nil, err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return nil, err
	}
	defer done()
	if client.Identities, err = ids.load(ctx, t); err != nil {
		return nil, err
	}
	open := func() (*modelsec.Model, error) { return client.Open(ctx, target, policy) }
	if len(names) > 0 {
		open = func() (*modelsec.Model, error) { return client.OpenFiles(ctx, target, policy, names...) }
	}
	m, err := open()
	if err != nil {
		return nil, ids.missing(err)
	}
	defer func() {
		if err = errors.Join(err, m.Close()); err != nil {
			for _, f := range files {
				f.Close()
			}
		}
	}()
	for _, file := range m.Files() {
		f, err := m.Memfd(ctx, file.Name)
		if err != nil {
			return files, err
		}
		files = append(files, sealedFile{f, file.Name})
	}
	return files, nil
}
