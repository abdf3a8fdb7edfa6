// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// missing ends a test that needs something this machine does not have: a named
// skip for whoever tries the library out, a failure where CI=true, so that
// nothing goes untried in silence.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI needs %s", what)
	}
	t.Skipf("not tried: %s is missing", what)
}

// program returns the path of a program that must be on PATH.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "the program "+name)
	}
	return path
}

// folder returns the folder that an environment variable names, and below it.
func folder(t *testing.T, variable string, below ...string) string {
	t.Helper()
	root := os.Getenv(variable)
	if root == "" {
		missing(t, "the folder that "+variable+" names")
	}
	dir := filepath.Join(append([]string{root}, below...)...)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Fatalf("%s names no folder with %s: %v", variable, dir, err)
	}
	return dir
}

// cleanEnv is an environment in which no credential or setting is found.
func cleanEnv(t *testing.T) []string {
	t.Helper()
	home := t.TempDir()
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "DOCKER_CONFIG=" + home, "TMPDIR=" + t.TempDir()}
}
