// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// TestMain is also the helpers tap and broker, where a command starts the test
// binary by these names.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "modelsec-helper-tap":
		keyhelper.Main(openTap)
		return
	case "modelsec-helper-broker":
		if err := serveKeyprovider(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if binaries != "" {
		os.RemoveAll(binaries)
	}
	os.Exit(code)
}

// binaries is what built made, for TestMain to remove.
var binaries string

// built builds the command and its helpers from this tree, once, into a
// directory which is the PATH of all tests. Ours stand there too.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "modelsec-matrix-")
	if err != nil {
		return "", err
	}
	binaries = dir
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, name := range []string{"tap", "broker"} {
		if err := os.Symlink(self, filepath.Join(dir, "modelsec-helper-"+name)); err != nil {
			return "", err
		}
	}
	programs, err := filepath.Glob("../../../examples/modelsec-helper-*")
	if err != nil {
		return "", err
	}
	for _, source := range append(programs, "../../../examples/modelsec") {
		c := exec.Command("go", "build", "-o", dir+string(filepath.Separator), ".")
		c.Dir = source
		if out, err := c.CombinedOutput(); err != nil {
			return "", errors.New(source + ": " + err.Error() + "\n" + string(out))
		}
	}
	return dir, nil
})

// programs returns the directory with the command and its helpers.
func programs(t *testing.T) string {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// command is the tool with a home, keys and an environment of its own. All that
// it ever wrote to its streams is kept.
type command struct {
	dir    string // its home, and where it runs
	env    []string
	mu     sync.Mutex
	output bytes.Buffer
}

func newCommand(t *testing.T, env ...string) *command {
	t.Helper()
	dir := t.TempDir()
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	c := &command{dir: dir, env: append([]string{
		"PATH=" + programs(t), "HOME=" + dir, "TMPDIR=" + tmp, "DOCKER_CONFIG=" + dir,
	}, env...)}
	for _, keys := range []string{"keys", "second", "third"} {
		c.run(t, 0, "keygen", "--out", keys)
	}
	return c
}

// run runs a verb, expects its exit status and returns its standard output and
// standard error.
func (c *command) run(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "modelsec"), args...)
	cmd.Dir, cmd.Env = c.dir, c.env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.output.Write(out.Bytes())
	c.output.Write(errs.Bytes())
	c.mu.Unlock()
	if got := cmd.ProcessState.ExitCode(); got != status {
		t.Fatalf("modelsec %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), got, status, &out, &errs)
	}
	return out.String(), errs.String()
}

// path is a file of the command.
func (c *command) path(name ...string) string {
	return filepath.Join(append([]string{c.dir}, name...)...)
}
