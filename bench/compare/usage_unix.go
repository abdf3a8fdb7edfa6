// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
)

// shrink makes this process as small as it gets. Linux counts the most memory
// that a parent had as its child's, since both share it until the child
// executes its program. Of what remains, about 15 MiB, nothing can be seen
// below.
func shrink() {
	debug.FreeOSMemory()
	// 5 sets the high-water mark back. Other systems have neither the file nor
	// the need.
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
}

// maxRSS is the most memory that a process had resident, in bytes.
func maxRSS(p *os.ProcessState) int64 {
	u, ok := p.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	if runtime.GOOS == "darwin" || runtime.GOOS == "ios" {
		return int64(u.Maxrss)
	}
	return int64(u.Maxrss) << 10
}

// freeSpace is how many bytes may still be written below dir.
func freeSpace(dir string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}
