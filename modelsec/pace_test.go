// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"testing"
	"time"
)

// TestMoreStreamsOnlyWhereLinesAreSlow: two cores are kept busy by three lines of
// 256 MiB/s, and by twelve of 90 MB/s, but not by six of these.
func TestMoreStreamsOnlyWhereLinesAreSlow(t *testing.T) {
	for _, test := range []struct {
		rate           int64 // bytes a second
		streams, cores int
		slow           bool
	}{
		{257 << 20, 3, 2, false},
		{255 << 20, 3, 2, true},
		{90e6, 3, 2, true},
		{90e6, 6, 2, true},
		{90e6, 12, 2, false},
		{90e6, 12, 8, true},
		{2 << 30, 2, 1, false},
		{0, 16, 2, true},
	} {
		p := pace{bytes: test.rate / 10, waited: 100 * time.Millisecond}
		if got := p.slow(test.streams, test.cores, corePace); got != test.slow {
			t.Errorf("%d streams of %d bytes/s and %d cores: slow = %t", test.streams, test.rate, test.cores, got)
		}
	}
}
