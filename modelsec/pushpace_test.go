// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"testing"
	"time"
)

// TestMoreUploadsOnlyWhereTheySendMore: lines of their own get as many as two cores
// can feed; those that share one get their four back, as do fast ones.
func TestMoreUploadsOnlyWhereTheySendMore(t *testing.T) {
	own := func(rate float64) func(int) float64 { return func(int) float64 { return rate } }
	shared := func(rate float64) func(int) float64 { return func(parts int) float64 { return rate / float64(parts) } }
	for name, test := range map[string]struct {
		rate       func(parts int) float64 // of each line, in bytes a second
		buffered   int                     // pieces that each new line takes at once
		most, last int
	}{
		"fast":                        {own(600e6), 4, 4, 4},
		"capped":                      {own(60e6), 4, 12, 12},
		"capped, eight are enough":    {own(120e6), 0, 8, 8},
		"stalled but for a trickle":   {own(10e3), 0, 12, 12},
		"shared":                      {shared(100e6), 4, 8, 4},
		"shared, slow":                {shared(5e6), 0, 8, 4},
		"shared, fast":                {shared(4e9), 0, 4, 4},
		"shared by more than eight":   {func(parts int) float64 { return min(50e6, 420e6/float64(parts)) }, 0, 12, 8},
		"shared, slow, large buffers": {shared(10e6), 4, 8, 4},
	} {
		t.Run(name, func(t *testing.T) {
			const piece = 1 << 20
			p := newPushPace(nil, 2, 1<<20, pushParts, mostParts)
			parts, most, free := pushParts, 0, pushParts*test.buffered
			for range 5000 {
				took := time.Millisecond
				if free == 0 {
					took = time.Duration(piece / test.rate(parts) * float64(time.Second))
				} else {
					free--
				}
				p.busy += took / time.Duration(parts) // each sends one while all do
				before := parts
				p.judge(pace{piece, took})
				parts = p.parts
				free += max(0, parts-before) * test.buffered
				most = max(most, parts)
			}
			if most != test.most || parts != test.last {
				t.Errorf("at most %d uploads at a time, and %d in the end; want %d and %d", most, parts, test.most, test.last)
			}
		})
	}
}
