// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Compare measures this library beside the tools that people use today: every
// transfer a process of its own, against one registry that is another process,
// in rounds that go through all contenders in turn.
//
//	go -C bench run ./compare [flags]
//
// It leaves raw samples, a table and a plot in bench/results. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	size       size
	rounds     int
	scenarios  string
	verbs      string
	contenders string
	work       string
	out        string
	profile    string
	install    bool
	warm       bool
	patience   time.Duration
	scale      string
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("compare: ")
	o := options{size: 2 << 30}
	flag.Var(&o.size, "size", "bytes of a model, as in 256MiB")
	flag.IntVar(&o.rounds, "rounds", 5, "how often every contender runs")
	flag.StringVar(&o.scenarios, "scenarios", "one,four,many,capped,shards", "what to move")
	flag.StringVar(&o.verbs, "verbs", "pull,push", "which way")
	flag.StringVar(&o.contenders, "contenders", "", "only contenders whose name contains one of these; empty: all there are")
	flag.StringVar(&o.work, "work", defaultWork(), "directory in memory for sources, registry and results")
	flag.StringVar(&o.out, "out", "results", "directory for samples, table and plot; empty: print the table only")
	flag.StringVar(&o.profile, "profile", "", "directory for processor profiles of this library, one more run each")
	flag.BoolVar(&o.install, "install", false, "build the oras CLI "+orasVersion+" where none is on PATH")
	flag.BoolVar(&o.warm, "warm", false, "first have a virtual machine's memory given to it for the whole run; as root on Linux")
	flag.StringVar(&o.scale, "scale", "", "sizes, as in 64MiB,1GiB: instead of the scenarios, one file of each size by this library alone, and whether memory and work a byte stay what they are; with -work on a disk")
	flag.DurationVar(&o.patience, "patience", 0, "before each sample, wait up to this long for the machine to be idle")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		stop()
		log.Fatal(err)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.rounds < 1 || flag.NArg() > 0 {
		return errors.New("needs at least one round, and no arguments beside flags")
	}
	work, err := os.MkdirTemp(o.work, "modelsec-compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	log.Print("building the programs")
	bin, err := build(ctx, o.install)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(bin)) }()
	keys, err := writeKeys(filepath.Join(work, "keys"))
	if err != nil {
		return err
	}
	if o.warm {
		end, err := warm(ctx, bin)
		if err != nil {
			return err
		}
		defer end()
	}
	all := contenders(ctx, bin, keys)
	r := &runner{options: o, work: work, bin: bin}
	for _, c := range all {
		if selected(o.contenders, c.name) {
			r.contenders = append(r.contenders, c)
		}
	}
	if len(r.contenders) == 0 {
		return fmt.Errorf("no contender is called %q", o.contenders)
	}
	record := &record{Environment: describe(ctx, o, r.contenders)}
	if o.scale != "" {
		return r.scale(ctx, record)
	}
	for _, s := range scenarios(int64(o.size)) {
		if !selected(o.scenarios, s.name) {
			continue
		}
		samples, err := r.scenario(ctx, s)
		if err != nil {
			err = fmt.Errorf("scenario %s: %w", s.name, err)
			if len(record.Samples) > 0 {
				// Those before it are whole, and took long.
				err = errors.Join(err, record.write(o.out, time.Now()))
			}
			return err
		}
		record.Samples = append(record.Samples, samples...)
	}
	return record.write(o.out, time.Now())
}

// selected reports whether one of the words of a list occurs in name.
func selected(list, name string) bool {
	for word := range strings.SplitSeq(list, ",") {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

func defaultWork() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return os.TempDir()
}
