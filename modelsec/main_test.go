// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestMain also serves as the process that tests kill, and fails where the
// tests together left a goroutine or an open file behind.
func TestMain(m *testing.M) {
	for variable, run := range map[string]func() error{envPull: pullAsChild, envPush: pushAsChild} {
		if os.Getenv(variable) == "" {
			continue
		}
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	files := openFiles()
	status := m.Run()
	if status == 0 {
		if left := leaked(files); left != "" {
			fmt.Fprintln(os.Stderr, left)
			status = 1
		}
	}
	os.Exit(status)
}

// leaked says what is still there some time after the last test.
func leaked(files int) string {
	var left string
	for range 50 {
		runtime.GC() // a Client has no Close: what it opened goes with it
		left = ours()
		if now := openFiles(); left == "" && now > files {
			left = fmt.Sprintf("%d files are open after the tests, %d were before", now, files)
		}
		if left == "" {
			return ""
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}

// ours returns the stack of a goroutine that runs code of this module, or
// nothing.
func ours() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	for _, stack := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(stack, "github.com/modelsec/") && !strings.Contains(stack, "modelsec_test.TestMain") {
			return "a goroutine outlived the tests:\n" + stack
		}
	}
	return ""
}

// openFiles counts the open descriptors of this process, where the system
// tells, without those of the runtime's poller.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(target, "anon_inode:") {
			n++
		}
	}
	return n
}
