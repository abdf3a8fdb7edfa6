// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc: 1/100 s on every Linux that runs Go.
const tick = 10 * time.Millisecond

// busy is the processor time that the whole machine has spent, what a
// hypervisor took away included; zero where /proc is not.
func busy() time.Duration {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	fields := strings.Fields(string(line))
	var sum int64
	// cpu user nice system idle iowait irq softirq steal guest guest_nice;
	// guest time is in user time.
	for i, f := range fields {
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		sum += n
	}
	return time.Duration(sum) * tick
}

// calm waits until nothing else keeps the machine busy, or until patience is at
// its end: a sample that others disturbed shows it.
func calm(ctx context.Context, patience time.Duration) {
	const look = 500 * time.Millisecond
	for end := time.Now().Add(patience); time.Now().Before(end) && ctx.Err() == nil; {
		before := busy()
		time.Sleep(look)
		if busy()-before < look*time.Duration(runtime.NumCPU())/20 {
			return
		}
	}
}

// spent is the processor time of a process that lives.
func spent(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name of the program is in parentheses and may hold spaces.
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * tick
}

// available is how much memory can be had, in bytes; -1 where that is not
// known. Files on tmpfs need it.
func available() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return -1
	}
	return meminfo(b, "MemAvailable")
}

// meminfo finds a line of /proc/meminfo, which has KiB and calls them kB.
func meminfo(b []byte, key string) int64 {
	for line := range strings.Lines(string(b)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, key+": %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	return -1
}
