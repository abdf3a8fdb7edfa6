// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/modelsec/modelsec-go/modelsec"
)

// progressMode is the value of --progress.
type progressMode string

var progressModes = []string{"auto", "plain", "json", "none"}

const (
	plainInterval = 5 * time.Second
	jsonInterval  = time.Second
	barInterval   = 100 * time.Millisecond
	barWidth      = 30
)

// Set implements pflag.Value.
func (m *progressMode) Set(s string) error {
	if !slices.Contains(progressModes, s) {
		return fmt.Errorf("want one of %s", strings.Join(progressModes, ", "))
	}
	*m = progressMode(s)
	return nil
}

func (m *progressMode) String() string {
	if *m == "" {
		return progressModes[0]
	}
	return string(*m)
}

// Type names the value in help.
func (m *progressMode) Type() string { return "mode" }

// watch returns the hook that shows progress, or nil, and what ends it.
func (t *tool) watch() (hook func(modelsec.Progress), done func()) {
	f, isFile := t.stderr.(*os.File)
	switch mode := t.progress.String(); {
	case mode == "none":
		return nil, func() {}
	case mode == "json":
		return (&jsonProgress{out: t.stderr}).update, func() {}
	case mode == "auto" && isFile && term.IsTerminal(int(f.Fd())):
		b := &barProgress{out: t.stderr}
		return b.update, b.close
	}
	return (&plainProgress{out: t.stderr}).update, func() {}
}

// barProgress is a bar on a terminal.
type barProgress struct {
	out io.Writer
	bar *progressbar.ProgressBar
}

func (b *barProgress) update(p modelsec.Progress) {
	if p.Total == 0 {
		return
	}
	if b.bar == nil {
		b.bar = progressbar.NewOptions64(p.Total,
			progressbar.OptionSetWriter(b.out), progressbar.OptionSetDescription(p.Op),
			progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionUseIECUnits(true), progressbar.OptionShowTotalBytes(true),
			progressbar.OptionSetWidth(barWidth), progressbar.OptionThrottle(barInterval), progressbar.OptionUseANSICodes(true))
	}
	// The terminal is where a failure would be told, and it just failed.
	_ = b.bar.Set64(min(p.Done, p.Total))
}

// close leaves the bar as it stands, at the end or not, on a line of its own.
func (b *barProgress) close() {
	if b.bar != nil {
		fmt.Fprintln(b.out)
	}
}

// plainProgress is a line every few seconds, for logs, and one at the end.
type plainProgress struct {
	out         io.Writer
	begun, last time.Time
}

func (l *plainProgress) update(p modelsec.Progress) {
	now := time.Now()
	if l.begun.IsZero() {
		l.begun, l.last = now, now
		if !p.Final {
			return
		}
	}
	if p.Total == 0 || !p.Final && now.Sub(l.last) < plainInterval {
		return
	}
	l.last = now
	rate := ""
	if s := now.Sub(l.begun).Seconds(); s >= 1 {
		rate = fmt.Sprintf(", %s/s", bytesText(int64(float64(p.Done-p.Found)/s)))
	}
	found := ""
	if p.Found > 0 {
		found = fmt.Sprintf(", %s of it were there", bytesText(p.Found))
	}
	fmt.Fprintf(l.out, "%s %s: %s of %s (%d%%)%s%s\n", p.Op, p.Ref, bytesText(p.Done), bytesText(p.Total), percent(p), found, rate)
}

func percent(p modelsec.Progress) int { return int(float64(p.Done) / float64(p.Total) * 100) }

// jsonProgress is a JSON object a second, for programs.
type jsonProgress struct {
	out  io.Writer
	last time.Time
}

// progressLine is its stable form.
type progressLine struct {
	Time  time.Time `json:"time"`
	Op    string    `json:"op"`
	Ref   string    `json:"ref"`
	File  string    `json:"file,omitempty"`
	Done  int64     `json:"done"`
	Found int64     `json:"found,omitempty"`
	Total int64     `json:"total"`
	Final bool      `json:"final"`
}

func (j *jsonProgress) update(p modelsec.Progress) {
	now := time.Now()
	if !p.Final && now.Sub(j.last) < jsonInterval {
		return
	}
	j.last = now
	// Nobody can be told that standard error is gone.
	_ = json.NewEncoder(j.out).Encode(progressLine{now.UTC(), p.Op, p.Ref, p.File, p.Done, p.Found, p.Total, p.Final})
}
