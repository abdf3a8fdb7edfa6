// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMedianTakesTheMiddle(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(c.in); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.in, got, c.want)
		}
	}
}

// The machine is twice as slow in the second round and the third, for all.
func TestRatiosArePairedWithinRounds(t *testing.T) {
	r := record{}
	for round, slow := range []float64{1, 2, 2} {
		r.Samples = append(r.Samples,
			sample{Scenario: "one", Verb: "pull", Contender: "modelsec plain", Round: round, Bytes: 1, Seconds: slow},
			sample{Scenario: "one", Verb: "pull", Contender: "oras", Round: round, Bytes: 1, Seconds: 2 * slow})
	}
	groups := r.groups()
	if len(groups) != 1 || len(groups[0].series) != 2 {
		t.Fatalf("got %d groups", len(groups))
	}
	if got := groups[0].series[0].ratio; got != 0.5 {
		t.Errorf("ratio %v, want 0.5", got)
	}
	if got := groups[0].series[1].ratio; got != 1 {
		t.Errorf("ratio of the baseline %v, want 1", got)
	}
}

func TestPlotIsWellFormed(t *testing.T) {
	r := record{Samples: []sample{
		{Scenario: "one", Model: `a <model> & "more"`, Verb: "pull", Contender: "raw floor", Bytes: 1, Seconds: 0.5},
		{Scenario: "one", Model: `a <model> & "more"`, Verb: "pull", Contender: "oras", Bytes: 1, Seconds: 2},
	}}
	d := xml.NewDecoder(strings.NewReader(string(plot(r.groups()))))
	for {
		if _, err := d.Token(); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestSizesReadBackAsWritten(t *testing.T) {
	for text, want := range map[string]size{"256MiB": 256 << 20, "2GiB": 2 << 30, "8 KiB": 8 << 10, "77": 77} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
		var again size
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%q was written as %q and read as %d, %v", text, s.String(), again, err)
		}
	}
	for _, text := range []string{"", "0", "-1MiB", "MiB", "many", "9999999GiB"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
}

func TestVerifyFindsEveryDifference(t *testing.T) {
	dir := t.TempDir()
	f := &field{scenario: scenario{name: "two", files: 2, size: 600 << 10}}
	f.source, f.target = filepath.Join(dir, "source"), filepath.Join(dir, "target")
	names, err := f.scenario.write(f.source)
	if err != nil {
		t.Fatal(err)
	}
	f.files = names
	if _, err := f.scenario.write(f.target); err != nil {
		t.Fatal(err)
	}
	if err := f.verify(false); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(f.target, names[1])
	b, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	flipped := append([]byte(nil), b...)
	flipped[len(b)-1] ^= 1
	for name, bad := range map[string][]byte{"flipped": flipped, "short": b[:len(b)-1], "long": append(b[:len(b):len(b)], 0), "empty": nil} {
		if err := os.WriteFile(last, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.verify(false); err == nil {
			t.Errorf("a %s file passes", name)
		}
	}
	if err := os.Remove(last); err != nil {
		t.Fatal(err)
	}
	if err := f.verify(false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}
