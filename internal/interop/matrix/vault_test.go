// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// vaultBinary is Vault's own transit engine, in a program of its own: its module
// and those of the clouds do not agree on versions.
var vaultBinary = sync.OnceValues(func() (string, error) {
	dir, err := built()
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "test", "-c", "-o", filepath.Join(dir, "vault"), ".")
	c.Dir = filepath.Join("..", "keys")
	if out, err := c.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go test -c: %w\n%s", err, out)
	}
	return filepath.Join(dir, "vault"), nil
})

// vaultProcess is a Vault that does as it is told, line by line.
type vaultProcess struct {
	mu  sync.Mutex
	in  io.Writer
	out *bufio.Reader
}

// tell sends a line and returns the number of requests so far.
func (v *vaultProcess) tell(t *testing.T, state string) int {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, err := fmt.Fprintln(v.in, state); err != nil {
		t.Fatal(err)
	}
	line, err := v.out.ReadString('\n')
	check(t, err)
	return must(strconv.Atoi(strings.TrimSpace(line)))(t)
}

func (v *vaultProcess) enter(state string) func(*testing.T) {
	return func(t *testing.T) { v.tell(t, state) }
}

func vault(t *testing.T) provider {
	c := exec.Command(must(vaultBinary())(t))
	c.Env = []string{"MODELSEC_TEST_VAULT=1"}
	in, out := must(c.StdinPipe())(t), must(c.StdoutPipe())(t)
	check(t, c.Start())
	t.Cleanup(func() {
		in.Close()
		if err := c.Wait(); err != nil {
			t.Errorf("vault: %v", err)
		}
	})
	v := &vaultProcess{in: in, out: bufio.NewReader(out)}
	first, err := v.out.ReadString('\n')
	check(t, err)
	address, token, _ := strings.Cut(strings.TrimSpace(first), " ")
	return provider{
		recipient: "hashivault://release", identity: "hashivault://release", stranger: "hashivault://another",
		env:      []string{"VAULT_ADDR=" + address, "VAULT_TOKEN=" + token},
		secrets:  [][]byte{[]byte(token)},
		requests: func() int { return v.tell(t, "count") },
		service: encrypttest.Service{
			Disable: v.enter("disable"), Deny: v.enter("deny"), Throttle: v.enter("throttle"), Fail: v.enter("fail"),
			Quote: v.enter("quote"), Stall: v.enter("stall"), Heal: v.enter("heal"),
		},
	}
}
