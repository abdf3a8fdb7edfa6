// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

const (
	// memoryModel is larger than what a command may take, so that one that
	// holds the model, or half of it, shows.
	memoryModel = 512 << 20
	memoryLimit = 256 << 20
)

// measuring is set in the process that measures.
const measuring = "MODELSEC_TEST_MEASURING"

// TestPeakMemory measures from a process of its own: what Linux calls the peak of
// a child begins with what its parent has, which other tests made large.
func TestPeakMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("moves 2 GiB")
	}
	if os.Getenv(measuring) != "" {
		measurePeaks(t)
		return
	}
	c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPeakMemory$", "-test.v")
	c.Env = append(os.Environ(), measuring+"=1")
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Error(err)
	}
}

// measurePeaks runs the command as it is installed: a test binary may be built
// with the race detector, which multiplies memory.
func measurePeaks(t *testing.T) {
	t.Helper()
	registry := startRegistry(t, true)
	dir := t.TempDir()
	binary := filepath.Join(dir, "modelsec")
	succeed(t, exec.Command("go", "build", "-o", binary, "."))
	if err := os.Mkdir(filepath.Join(dir, "model"), 0o755); err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(dir, "model", "model.safetensors")
	if err := os.WriteFile(weights, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(weights, memoryModel); err != nil {
		t.Fatal(err)
	}
	ref := registry + "/team/model:v1"
	for _, args := range [][]string{
		{"keygen"},
		{"push", "model", ref, "--sign-key", "signing.key", "--recipient", "identity.pub"},
		{"verify", ref, "--key", "signing.pub", "--deep"},
		{"pull", ref, "out", "--key", "signing.pub", "--identity", "identity.key"},
		{"cp", ref, "oci:layout:v1"},
	} {
		c := modelsecCommand(t, dir, args...)
		c.Path = binary
		succeed(t, c)
		peak := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
		t.Logf("%s: %s", args[0], bytesText(peak))
		if peak > memoryLimit {
			t.Errorf("%s took %s, limit %s", args[0], bytesText(peak), bytesText(memoryLimit))
		}
	}
}
