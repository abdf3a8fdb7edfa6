// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Worker is one transfer as one process, so that its time, processor time and
// memory can be measured from outside:
//
//	worker modelsec-push -ref REF -dir DIR -signer KEY [-recipient KEY]
//	worker modelsec-pull -ref REF -dir DIR -trust KEY [-identity KEY]
//	worker oras-push     -ref REF -dir DIR
//	worker oras-pull     -ref REF -dir DIR
//	worker floor-pull    -ref REF -dir DIR
//
// The first two use the library as an application would. oras-push and
// oras-pull are oras.Copy of oras-go with its defaults. floor-pull fetches
// ranges and writes them in place, and verifies nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime/pprof"
)

// task is what the flags ask for.
type task struct {
	ref, dir                           string
	signer, trust, recipient, identity string // files with keys
}

var tasks = map[string]func(context.Context, task) error{
	"modelsec-push": modelsecPush,
	"modelsec-pull": modelsecPull,
	"oras-push":     orasPush,
	"oras-pull":     orasPull,
	"floor-pull":    floorPull,
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("worker: ")
	if len(os.Args) < 2 || tasks[os.Args[1]] == nil {
		log.Fatal("the first argument names no task")
	}
	var t task
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&t.ref, "ref", "", "reference, host:port/path:tag")
	flags.StringVar(&t.dir, "dir", "", "directory with the files, or for them")
	flags.StringVar(&t.signer, "signer", "", "private key that signs the release")
	flags.StringVar(&t.trust, "trust", "", "public key that the policy requires")
	flags.StringVar(&t.recipient, "recipient", "", "public key to encrypt for; none: plain")
	flags.StringVar(&t.identity, "identity", "", "private key to decrypt with")
	profile := flags.String("cpuprofile", "", "write a processor profile to this file")
	flags.Parse(os.Args[2:])

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := profiled(*profile, func() error { return tasks[os.Args[1]](ctx, t) }); err != nil {
		log.Fatal(err)
	}
}

// profiled runs f, under the profiler where a file is named.
func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := pprof.StartCPUProfile(out); err != nil {
		return fmt.Errorf("start of the profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return f()
}
