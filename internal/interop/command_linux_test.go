// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// peakLimit is the most memory a command of the CLI may ever have resident.
const peakLimit = 256 << 20

// command is the CLI with keys of its own and nothing of the machine's
// configuration.
type command struct {
	path string
	env  []string
	keys string // directory that keygen filled
}

// newCommand builds the CLI and makes its keys.
func newCommand(t *testing.T) *command {
	t.Helper()
	dir := t.TempDir()
	c := &command{path: filepath.Join(dir, "modelsec"), keys: filepath.Join(dir, "keys"), env: cleanEnv(t)}
	build := exec.Command(program(t, "go"), "build", "-o", c.path, ".")
	build.Dir = filepath.Join("..", "..", "examples", "modelsec")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c.run(t, 0, "keygen", "--out", c.keys)
	return c
}

func (c *command) key(name string) string { return filepath.Join(c.keys, name) }

// text reads a key file.
func (c *command) text(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(c.key(name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// result is what a command left behind.
type result struct {
	stdout, stderr string
	peak           int64 // VmHWM in bytes
}

// run runs a command of the CLI and expects its exit status.
func (c *command) run(t *testing.T, status int, args ...string) result {
	t.Helper()
	var r result
	file := filepath.Join(t.TempDir(), "peak")
	cmd := exec.Command(os.Args[0], append([]string{c.path}, args...)...)
	cmd.Env = append([]string{peakFile + "=" + file}, c.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	r.stdout, r.stderr = stdout.String(), stderr.String()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("modelsec %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, r.stdout, r.stderr)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if r.peak, err = strconv.ParseInt(string(text), 10, 64); err != nil {
		t.Fatal(err)
	}
	t.Logf("modelsec %s: peak memory %d MiB", args[0], r.peak>>20)
	if r.peak >= peakLimit {
		t.Errorf("modelsec %s: peak memory %d MiB, want less than %d", args[0], r.peak>>20, peakLimit>>20)
	}
	return r
}

// peakFile names, by environment, the file for the peak memory of a command.
const peakFile = "MODELSEC_INTEROP_PEAK"

// TestMain lets this program stand between a test and the command it measures.
// The kernel counts towards the peak of a process what its parent had resident
// when it was started; this parent has next to nothing, a test may have a lot.
func TestMain(m *testing.M) {
	if file, ok := os.LookupEnv(peakFile); ok {
		os.Exit(measure(file, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// measure runs a program and writes its peak memory to the file.
func measure(file string, args []string) int {
	os.Unsetenv(peakFile)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 126
	}
	// Linux counts in KiB.
	peak := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
	if err := os.WriteFile(file, strconv.AppendInt(nil, peak, 10), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 126
	}
	return cmd.ProcessState.ExitCode()
}

// sameByDiff runs diff -r, which must find nothing.
func sameByDiff(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.Command(program(t, "diff"), "-r", a, b).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("diff -r: %v\n%.2000s", err, out)
	}
}
