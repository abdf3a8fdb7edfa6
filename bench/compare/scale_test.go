// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestScaleTableJudgesEverySize: work a byte may differ by 15 % either way, and
// no process may have more than 256 MiB, at any size.
func TestScaleTableJudgesEverySize(t *testing.T) {
	for name, c := range map[string]struct {
		cpu  []float64 // seconds for each GiB, by size
		peak []int64   // MiB
		held bool
	}{
		"flat":          {[]float64{1, 1.1, 1}, []int64{50, 50, 256}, true},
		"at the bound":  {[]float64{0.85, 1, 1.15}, []int64{50, 50, 50}, true},
		"grows":         {[]float64{1, 1.2, 1.4}, []int64{50, 50, 50}, false},
		"costly start":  {[]float64{2, 1, 1}, []int64{50, 50, 50}, false},
		"one peak":      {[]float64{1, 1, 1}, []int64{50, 257, 50}, false},
		"a single size": {[]float64{1}, []int64{50}, true},
	} {
		r := &record{}
		for i, cpu := range c.cpu {
			n := size(64<<20) << (2 * i)
			for round, peak := range []int64{10, c.peak[i], 20} {
				r.Samples = append(r.Samples, sample{Scenario: n.String(), Verb: "pull", Contender: "modelsec plain", Round: round, Bytes: int64(n),
					Seconds: 1, CPUSeconds: cpu * float64(n) / (1 << 30), MaxRSS: peak << 20})
			}
		}
		table, held := scaleTable(r.Environment, r.groups())
		if held != c.held {
			t.Errorf("%s: the bounds hold: %v, want %v\n%s", name, held, c.held, table)
		}
		if not := strings.Contains(string(table), "do not hold"); not == c.held {
			t.Errorf("%s: the table says the opposite:\n%s", name, table)
		}
	}
}
