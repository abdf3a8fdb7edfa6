// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// record is everything that a run leaves.
type record struct {
	Environment environment
	Samples     []sample
}

// write puts samples, table and plot into dir, named by day and commit, and
// prints the table.
func (r *record) write(dir string, now time.Time) error {
	if len(r.Samples) == 0 {
		return errors.New("nothing was measured: no scenario or verb of that name")
	}
	groups := r.groups()
	return r.keep(dir, "", now, r.table(groups), groups)
}

// keep is write for a table that is made already.
func (r *record) keep(dir, suffix string, now time.Time, table []byte, groups []*group) error {
	os.Stdout.Write(table)
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	lines, err := r.lines()
	if err != nil {
		return err
	}
	base := filepath.Join(dir, now.UTC().Format("2006-01-02")+"-"+r.Environment.Commit+suffix)
	return errors.Join(
		os.WriteFile(base+".json", lines, 0o644),
		os.WriteFile(base+".md", table, 0o644),
		os.WriteFile(base+".svg", plot(groups), 0o644))
}

// header is what stands above every table.
func (e environment) header(w io.Writer) {
	fmt.Fprintf(w, "Commit %s, %s, %s (%s), %s %s, %d cores, %d MiB, kernel %s, %s on %s, %d rounds. Load at the start: %s.\n",
		e.Commit, e.Time, e.CPU, joinOr(e.Features, "no features listed"), e.OS, e.Arch, e.Cores, e.MemoryMiB, e.Kernel, e.Registry, e.Storage, e.Rounds, e.Load)
	fmt.Fprintf(w, "Built with %s.", e.Go)
	if e.Warm {
		fmt.Fprint(w, " Memory was touched before and kept.")
	}
	fmt.Fprintln(w)
}

// lines is the environment and then every sample, each a line of JSON.
func (r *record) lines() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	if err := e.Encode(map[string]any{"environment": r.Environment}); err != nil {
		return nil, err
	}
	for _, s := range r.Samples {
		if err := e.Encode(map[string]any{"sample": s}); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

// table is what people read: one table for each scenario and direction.
func (r *record) table(groups []*group) []byte {
	var b bytes.Buffer
	e := r.Environment
	e.header(&b)
	for _, g := range groups {
		fmt.Fprintf(&b, "\n### %s: %s\n\n", title(g.verb), g.model)
		b.WriteString("| | seconds (least – most) | × oras | MB/s | CPU s/GiB | peak MiB | others' CPU |\n|---|---|---|---|---|---|---|\n")
		for _, s := range g.series {
			ratio := "–"
			if s.ratio > 0 {
				ratio = fmt.Sprintf("%.2f", s.ratio)
			}
			fmt.Fprintf(&b, "| %s | %.2f (%.2f – %.2f) | %s | %.0f | %.2f | %d | %.0f %% |\n", s.contender, s.seconds, s.least, s.most, ratio,
				float64(s.bytes)/1e6/s.seconds, s.cpu*(1<<30)/float64(s.bytes), s.rss>>20, 100*s.others/float64(e.Cores))
		}
	}
	b.WriteString("\nMedians. × oras is the median of the ratios to oras in the same round. Others' CPU is the largest share of the machine that anything else took during one sample.\n\n")
	for _, c := range e.Contenders {
		fmt.Fprintf(&b, "- **%s**: %s", c.Name, c.Note)
		if c.Version != "" {
			fmt.Fprintf(&b, " (%s)", c.Version)
		}
		b.WriteString("\n")
	}
	return b.Bytes()
}
