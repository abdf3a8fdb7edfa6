// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
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

// cleanEnv is an environment in which no credential or setting is found.
func cleanEnv(t *testing.T) []string {
	t.Helper()
	home := t.TempDir()
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "DOCKER_CONFIG=" + home, "TMPDIR=" + t.TempDir(), "COSIGN_PASSWORD="}
}

// tool is a program that tests call.
type tool struct {
	path string
	env  []string
}

func newTool(t *testing.T, name string) tool {
	t.Helper()
	return tool{program(t, name), cleanEnv(t)}
}

// run returns standard output; the error has what the program said.
func (x tool) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), x.path, args...)
	cmd.Dir, cmd.Env = t.TempDir(), x.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(x.path), strings.Join(args, " "), err, out, &stderr)
	}
	return string(out), nil
}

// must expects that the program succeeds.
func (x tool) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := x.run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// built is the CLI, built once.
var built struct {
	sync.Once
	path string
	err  error
}

// command is our CLI.
func command(t *testing.T) tool {
	t.Helper()
	compiler := program(t, "go")
	built.Do(func() {
		built.path = filepath.Join(scratch, "modelsec")
		cmd := exec.Command(compiler, "build", "-o", built.path, ".")
		cmd.Dir = filepath.Join("..", "..", "..", "examples", "modelsec")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return tool{built.path, cleanEnv(t)}
}

// file writes a file and returns its path.
func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
