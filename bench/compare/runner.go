// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
)

// runner takes contenders through scenarios.
type runner struct {
	options
	work, bin  string
	contenders []contender
}

// field is where one scenario is run.
type field struct {
	scenario scenario
	server   *server
	transfer
}

// scenario pulls, then pushes, each in rounds.
func (r *runner) scenario(ctx context.Context, s scenario) (samples []sample, err error) {
	if err := r.checkMemory(s); err != nil {
		return nil, err
	}
	f := &field{scenario: s}
	dir, err := os.MkdirTemp(r.work, s.name+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	f.source, f.target, f.home = filepath.Join(dir, "source"), filepath.Join(dir, "target"), filepath.Join(dir, "home")
	if f.files, err = f.scenario.write(f.source); err != nil {
		return nil, err
	}
	if f.server, err = startServer(ctx, r.bin, r.work, s.limit); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.server.stop()) }()
	if selected(r.verbs, "pull") {
		pulls, err := r.pulls(ctx, f)
		if err != nil {
			return nil, err
		}
		samples = append(samples, pulls...)
		if err := f.server.clear(); err != nil {
			return nil, err
		}
	}
	if selected(r.verbs, "push") {
		pushes, err := r.pushes(ctx, f)
		if err != nil {
			return nil, err
		}
		samples = append(samples, pushes...)
	}
	return samples, nil
}

// pulls has every contender's artifact made, and then pulled in rounds.
func (r *runner) pulls(ctx context.Context, f *field) ([]sample, error) {
	for _, c := range r.contenders {
		prepare := c.prepare
		if prepare == nil {
			prepare = c.push
		}
		if _, err := r.step(ctx, f, c, prepare, nil); err != nil {
			return nil, err
		}
	}
	verify := func(_ context.Context, c contender) error {
		return f.verify(c.digests)
	}
	return r.rounds(ctx, f, "pull", func(c contender) step { return c.pull }, verify)
}

// pushes pushes in rounds, each time into an empty registry. That the bytes
// are there and are the right ones shows when the contender pulls them.
func (r *runner) pushes(ctx context.Context, f *field) ([]sample, error) {
	verify := func(ctx context.Context, c contender) error {
		defer f.server.clear()
		return r.checkPush(ctx, f, c)
	}
	return r.rounds(ctx, f, "push", func(c contender) step { return c.push }, verify)
}

func (r *runner) checkPush(ctx context.Context, f *field, c contender) error {
	_, err := r.step(ctx, f, c, c.pull, func(context.Context, contender) error { return f.verify(c.digests) })
	return err
}

// step is what a contender does in one run.
type step = func(ref string, t *transfer) []command

// rounds measures a step of every contender in turn, again and again.
func (r *runner) rounds(ctx context.Context, f *field, verb string, of func(contender) step, verify func(context.Context, contender) error) ([]sample, error) {
	var samples []sample
	for round := range r.options.rounds {
		for _, c := range r.contenders {
			if of(c) == nil {
				continue
			}
			calm(ctx, r.patience)
			s, err := r.step(ctx, f, c, of(c), verify)
			if err != nil {
				return nil, err
			}
			s.Scenario, s.Model, s.Verb, s.Contender, s.Round, s.Bytes = f.scenario.name, f.scenario.String(), verb, c.name, round+1, f.scenario.bytes()
			log.Printf("%-7s %s %d  %-19s %7.3f s  %6.3f s cpu  %4d MiB", f.scenario.name, verb, round+1, c.name, s.Seconds, s.CPUSeconds, s.MaxRSS>>20)
			samples = append(samples, s)
		}
	}
	return samples, r.profiles(ctx, f, verb, of)
}

// step runs one step of one contender and verifies what came of it, which is
// not measured.
func (r *runner) step(ctx context.Context, f *field, c contender, do step, verify func(context.Context, contender) error) (s sample, err error) {
	return r.commands(ctx, f, c, func(ref string) []command { return do(ref, &f.transfer) }, verify)
}

func (r *runner) commands(ctx context.Context, f *field, c contender, commands func(ref string) []command, verify func(context.Context, contender) error) (s sample, err error) {
	if err := os.Mkdir(f.home, 0o700); err != nil {
		return s, err
	}
	list := commands(f.server.host + "/bench/" + slug(c.name) + ":v1")
	machine, registry := busy(), spent(f.server.pid)
	cost, err := execute(ctx, f.home, list)
	machine, registry = busy()-machine, spent(f.server.pid)-registry
	// What a tool keeps must go before verification: it may be read instead of
	// the registry.
	if err = errors.Join(err, os.RemoveAll(f.home)); err == nil && verify != nil {
		err = verify(ctx, c)
	}
	if err = errors.Join(err, os.RemoveAll(f.target)); err != nil {
		return s, fmt.Errorf("%s: %w", c.name, err)
	}
	return sample{
		Seconds: cost.wall.Seconds(), CPUSeconds: cost.cpu.Seconds(), MaxRSS: cost.rss,
		RegistryCPUSeconds: registry.Seconds(), OtherCPUSeconds: max(0, machine-cost.cpu-registry).Seconds(),
	}, nil
}

// profiles runs what is ours once more under the profiler.
func (r *runner) profiles(ctx context.Context, f *field, verb string, of func(contender) step) error {
	if r.profile == "" {
		return nil
	}
	dir, err := filepath.Abs(r.profile)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, c := range r.contenders {
		if !c.profile || of(c) == nil {
			continue
		}
		file := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.pprof", f.scenario.name, verb, slug(c.name)))
		_, err := r.commands(ctx, f, c, func(ref string) []command {
			list := of(c)(ref, &f.transfer)
			list[0].args = append(list[0].args, "-cpuprofile", file)
			return list
		}, nil)
		if err == nil && verb == "push" {
			err = f.server.clear()
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkMemory refuses a scenario that would not fit, before anything is
// written: what a full tmpfs ends is the machine.
func (r *runner) checkMemory(s scenario) error {
	free := available()
	if free < 0 || !strings.HasPrefix(r.work, "/dev/shm") {
		return nil
	}
	// The source, what a contender writes, and each form that is stored.
	need := 2 * s.bytes()
	forms := make(map[string]bool)
	for _, c := range r.contenders {
		if !forms[c.stored] {
			forms[c.stored] = true
			need += s.bytes()
		}
		if c.home {
			need += s.bytes()
		}
	}
	const reserve = 1 << 30 // for the processes
	if need+reserve > free {
		return fmt.Errorf("needs %d MiB of memory, %d MiB are available: use -size, -contenders or -work", (need+reserve)>>20, free>>20)
	}
	return nil
}

// slug is a name as repositories and files may have it.
func slug(name string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' {
			return '-'
		}
		if r >= 'a' && r <= 'z' || r == '-' {
			return r
		}
		return -1
	}, name)
}

// sample is one measurement.
type sample struct {
	Scenario   string  `json:"scenario"`
	Model      string  `json:"model"`
	Verb       string  `json:"verb"`
	Contender  string  `json:"contender"`
	Round      int     `json:"round"`
	Bytes      int64   `json:"bytes"`
	Seconds    float64 `json:"seconds"`
	CPUSeconds float64 `json:"cpuSeconds"`
	MaxRSS     int64   `json:"maxRSS"`

	// Of the registry, and of everything else on the machine meanwhile.
	RegistryCPUSeconds float64 `json:"registryCPUSeconds"`
	OtherCPUSeconds    float64 `json:"otherCPUSeconds"`
}
