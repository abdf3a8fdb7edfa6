// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

const (
	// defaultBuffers is the default of modelsec.Client.MemoryLimit.
	defaultBuffers = 128 << 20

	// leastBuffers is what one layer of a large model takes on its way through a
	// push, and an index beside it.
	leastBuffers = 64 << 20

	// overhead is what the heap holds beside the buffers of the client:
	// connections, TLS, and garbage that is not collected yet.
	overhead = 48 << 20
)

// boundMemory keeps the process near the memory it was given. Buffers are
// most of what is live, and they are reused: letting the heap grow to twice of
// that before the collector runs, which is Go's default, would buy nothing.
func (t *tool) boundMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return // somebody has decided
	}
	buffers := int64(t.memory)
	if buffers == 0 {
		buffers = defaultBuffers
	}
	debug.SetMemoryLimit(buffers + overhead)
}

// size is a number of bytes, written with or without a unit.
type size int64

var units = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12},
	{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}, {"T", 1 << 40}, {"B", 1},
}

// Set parses the value of --memory.
func (s *size) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range units {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			number, unit = n, u.bytes
			break
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(n) || n < 0 || n*float64(unit) >= 1<<62 {
		return fmt.Errorf("want a size, as in 256MiB")
	}
	if n*float64(unit) < leastBuffers {
		return fmt.Errorf("at least %s are needed", bytesText(leastBuffers))
	}
	*s = size(n * float64(unit))
	return nil
}

func (s *size) String() string {
	if *s == 0 {
		return ""
	}
	return bytesText(int64(*s))
}

// Type names the value in help.
func (s *size) Type() string { return "size" }

// bytesText writes a number of bytes for people.
func bytesText(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n), ""
	for _, u := range units[:4] {
		if n >= u.bytes {
			value, unit = float64(n)/float64(u.bytes), u.suffix
		}
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + unit
}
