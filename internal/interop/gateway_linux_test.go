// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// gateway is modelsec serve as a process.
type gateway struct {
	endpoint, settings string
}

func startGateway(t *testing.T, c *command, model string, flags ...string) *gateway {
	t.Helper()
	ref := "oci:" + filepath.Join(t.TempDir(), "layout") + ":v1"
	c.run(t, 0, "push", model, ref, "--name", "team/minilm", "--sign-key", c.key("signing.key"), "--recipient", c.key("identity.pub"))
	g := &gateway{settings: filepath.Join(t.TempDir(), "run")}
	cmd := exec.Command(c.path, append([]string{"serve", ref, "--name", "team/minilm", "--key", c.key("signing.pub"), "--identity", c.key("identity.key"), "--settings", g.settings}, flags...)...)
	cmd.Env, cmd.Stderr = c.env, os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("serve: %v", err)
		}
		if _, err := os.Stat(g.settings); !os.IsNotExist(err) {
			t.Errorf("the settings were left: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	g.endpoint = strings.TrimSpace(line)
	return g
}

// variables is the environment that the gateway wrote for its clients.
func (g *gateway) variables(t *testing.T) []string {
	t.Helper()
	env, err := os.ReadFile(filepath.Join(g.settings, "env"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(env))
}

// TestBotoReadsARealModelThroughTheGateway with nothing but the variables that
// the gateway wrote.
func TestBotoReadsARealModelThroughTheGateway(t *testing.T) {
	model := folder(t, "MODELSEC_MODEL")
	python := program(t, "python3")
	if err := exec.Command(python, "-c", "import boto3, safetensors, numpy").Run(); err != nil {
		missing(t, "the Python packages boto3, safetensors and numpy")
	}
	g := startGateway(t, newCommand(t), model, "--listen", "127.0.0.1:0")
	check := exec.Command(python, "-B", filepath.Join("testdata", "tensors", "gateway.py"), model)
	check.Env = append(cleanEnv(t), g.variables(t)...)
	if out, err := check.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) == "0" {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestOtherUsersAreNotServed: neither through the directory of the socket, nor
// where that was opened to all.
func TestOtherUsersAreNotServed(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root, to become another user")
	}
	python := program(t, "python3")
	g := startGateway(t, newCommand(t), writeModel(t, map[string][]byte{"model.safetensors": noise(70_000), "config.json": []byte("{}")}))
	socket := strings.TrimPrefix(g.endpoint, "unix:")
	ask := func(user string) string {
		out, err := exec.Command(python, "-B", filepath.Join("testdata", "tensors", "socket_get.py"), socket, "model.safetensors", user).CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := ask("0"); got != fmt.Sprint("200 ", 70_000) {
		t.Errorf("this user got %q", got)
	}
	const other = "65534"
	if got := ask(other); got != "cannot connect" {
		t.Errorf("another user got %q", got)
	}
	for dir := filepath.Dir(socket); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := ask(other); !strings.HasPrefix(got, "403 ") {
		t.Errorf("another user who could connect got %q", got)
	}
}
