// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package program runs the programs that hold keys for us: found by absolute
// path, with as little of our environment as they need, for a bounded time, and
// with a bounded answer.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"
)

// Why a program was killed.
var (
	ErrTimeout = errors.New("the program did not answer in time")
	ErrTooLong = errors.New("the program answered more than it may")
)

// lastWords is how long the pipes of a program stay open after its end, for
// children that it left behind.
const lastWords = time.Second

// Program says what to run, and how.
type Program struct {
	Path string // as Find returned it
	Args []string
	// Env is what it finds in its environment beside a few harmless variables:
	// "NAME=value", or "NAME" and "PREFIX_*" for variables of this process.
	Env     []string
	Timeout time.Duration
	// Answer is how many bytes it may write to stdout.
	Answer int
}

// Find returns the absolute path of a program: the one given, or that of a name
// without a separator in PATH. A name found by way of the current directory is an
// error.
func Find(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("no program is configured")
	case filepath.IsAbs(path):
		return path, nil
	case filepath.Base(path) != path:
		return "", fmt.Errorf("program %q: want an absolute path, or a name to look up in PATH", path)
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(found) {
		return "", fmt.Errorf("program %q was found as %q: PATH must hold absolute paths", path, found)
	}
	return found, nil
}

// Run runs the program once, in a process group of its own that is killed with it,
// and returns what it wrote to stdout and the first of what it wrote to stderr.
// Both are valid beside an error, and the caller's to wipe. The error is that of
// ctx, ErrTimeout, ErrTooLong, or says how the program ended.
func (p Program) Run(ctx context.Context, stdin []byte) (stdout, stderr []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	out, words := &capped{limit: p.Answer, full: cancel}, &capped{limit: maxStderr}
	err = p.run(bounded, stdin, out, words)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case out.over:
		err = ErrTooLong
	case bounded.Err() != nil:
		err = ErrTimeout
	}
	return out.kept.Bytes(), words.kept.Bytes(), err
}

func (p Program) run(ctx context.Context, stdin []byte, stdout, stderr *capped) error {
	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), stdout, stderr
	cmd.Env = environment(p.Env)
	cmd.WaitDelay = lastWords
	ownGroup(cmd)
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// A child holds a pipe of ours, so the group still exists.
		killGroup(cmd.Process.Pid)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New(exit.String()) // without the stderr that ExitError may hold
	}
	return err
}

// capped keeps the first limit bytes of what a program writes.
type capped struct {
	limit int
	full  func() // called when more comes; nil: the rest is dropped
	kept  bytes.Buffer
	over  bool
}

// Write implements [io.Writer]. It never fails, so that a program which says too
// much is ended by the context and not by a signal that hides why.
func (c *capped) Write(b []byte) (int, error) {
	room := min(len(b), c.limit-c.kept.Len())
	c.kept.Write(b[:room])
	if room < len(b) && !c.over {
		c.over = true
		if c.full != nil {
			c.full()
		}
	}
	return len(b), nil
}
