// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// The command modelsec publishes model weights to an OCI registry, encrypted
// and attested, and gives out only those that a policy admits.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main with its surroundings given, and returns the exit status.
func run(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal asks for a clean end. After it the default handling is
	// back, so that a second one kills.
	defer context.AfterFunc(ctx, stop)()

	t := &tool{stdin: stdin, stdout: stdout, stderr: stderr}
	root := t.rootCommand()
	root.SetArgs(args)
	verb, err := root.ExecuteContextC(ctx)
	if err == nil {
		return statusDone
	}
	t.path = verb.CommandPath()
	return t.fail(ctx, args, err)
}
