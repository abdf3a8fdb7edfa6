// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// What must hold at every size.
const (
	scaleMemory = 256 << 20 // bytes resident at most
	scaleSpread = 0.15      // of processor time a byte, either way from the middle of its range

	// scaleFrom is the least size of the last column, which explains and is not
	// judged. Of smaller ones the start of a process and the memory that it touches
	// for the first time, some 30 ms together, are a large part.
	scaleFrom = 256 << 20
)

// scaleShort is the size below which a round measures three times: what takes a
// tenth of a second varies most.
const scaleShort = 1 << 30

// scale moves one file of each size, plain and encrypted. Every round has all
// sizes, so that a mood of the machine is not taken for what a size costs. They
// take turns with the disk, which has room for one at a time: source, registry,
// result.
func (r *runner) scale(ctx context.Context, record *record) error {
	sizes, err := parseSizes(r.options.scale)
	if err != nil {
		return err
	}
	ours := slices.DeleteFunc(slices.Clone(r.contenders), func(c contender) bool { return !c.profile })
	record.Environment.Contenders = describeContenders(ours)
	record.Environment.Size = r.options.scale
	for _, n := range sizes {
		if err := checkDisk(r.work, int64(n)); err != nil {
			return err
		}
	}
	for round := range r.options.rounds {
		for _, n := range sizes {
			for _, c := range ours {
				samples, err := r.scaleOne(ctx, n, c, round)
				if err != nil {
					return fmt.Errorf("%s: %w", n, err)
				}
				record.Samples = append(record.Samples, samples...)
			}
		}
	}
	groups := record.groups()
	table, held := scaleTable(record.Environment, groups)
	if err := record.keep(r.options.out, "-scale", time.Now(), table, groups); err != nil {
		return err
	}
	if !held {
		return errors.New("a bound did not hold")
	}
	return nil
}

// scaleOne is one round of one size and one contender.
func (r *runner) scaleOne(ctx context.Context, n size, c contender, round int) ([]sample, error) {
	one := *r
	one.contenders, one.options.rounds = []contender{c}, 1
	if n < scaleShort {
		one.options.rounds = 3
	}
	samples, err := one.scenario(ctx, scenario{name: n.String(), files: 1, size: int64(n)})
	for i := range samples {
		samples[i].Round += round * one.options.rounds
	}
	return samples, err
}

func parseSizes(list string) (sizes []size, err error) {
	for text := range strings.SplitSeq(list, ",") {
		var n size
		if err := n.Set(text); err != nil {
			return nil, err
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// scaleTable says what each size took, and whether the bounds hold.
func scaleTable(e environment, groups []*group) (table []byte, held bool) {
	type key struct{ contender, verb string }
	var rows []key
	cells := make(map[key][]*series)
	var sizes []string
	for _, g := range groups {
		if !slices.Contains(sizes, g.scenario) {
			sizes = append(sizes, g.scenario)
		}
		for _, s := range g.series {
			k := key{s.contender, g.verb}
			if cells[k] == nil {
				rows = append(rows, k)
			}
			cells[k] = append(cells[k], s)
		}
	}
	held = true
	var b bytes.Buffer
	e.header(&b)
	fmt.Fprintf(&b, "\nOne file of each size. CPU seconds for each GiB, and the most memory resident (VmHWM) in MiB: medians, of memory the most.\n\n| | %s | spread | from %s |\n|---|%s---|---|\n",
		strings.Join(sizes, " | "), size(scaleFrom), strings.Repeat("---|", len(sizes)))
	for _, k := range rows {
		fmt.Fprintf(&b, "| %s, %s |", k.contender, k.verb)
		var all, large spread
		for _, s := range cells[k] {
			perGiB := s.cpu * (1 << 30) / float64(s.bytes)
			all.add(perGiB)
			if s.bytes >= scaleFrom {
				large.add(perGiB)
			}
			peak := s.peak()
			held = held && peak <= scaleMemory
			fmt.Fprintf(&b, " %.2f, %d |", perGiB, peak>>20)
		}
		held = held && all.share() <= scaleSpread
		fmt.Fprintf(&b, " ± %.0f %% | ± %.0f %% |\n", 100*all.share(), 100*large.share())
	}
	verdict := "hold"
	if !held {
		verdict = "do not hold"
	}
	fmt.Fprintf(&b, "\nThe bounds %s: %d MiB at every size, processor time a byte within ± %.0f %% over all of them.\n", verdict, scaleMemory>>20, 100*scaleSpread)
	return b.Bytes(), held
}

// spread is how far values are apart.
type spread struct{ least, most float64 }

func (s *spread) add(v float64) {
	if s.most == 0 {
		s.least = v
	}
	s.least, s.most = min(s.least, v), max(s.most, v)
}

// share is half of the range over its middle.
func (s *spread) share() float64 {
	if s.most == 0 {
		return 0
	}
	return (s.most - s.least) / (s.most + s.least)
}

// peak is the most memory of any sample.
func (s *series) peak() (most int64) {
	for _, x := range s.samples {
		most = max(most, x.MaxRSS)
	}
	return most
}

// checkDisk demands room for a source, what is stored of it and what is pulled,
// before an hour of work ends in a full disk.
func checkDisk(dir string, model int64) error {
	free, err := freeSpace(dir)
	if err != nil {
		return err
	}
	if need := 3*model + model/16 + 256<<20; free < need {
		return fmt.Errorf("%s has %d MiB free, %d are needed: use -work or smaller sizes", filepath.Clean(dir), free>>20, need>>20)
	}
	return nil
}
