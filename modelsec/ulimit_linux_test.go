// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
)

// limited pulls in a process under a limit of the shell's ulimit.
func limited(t *testing.T, limit, ref, dest, keys string) (output string, err error) {
	t.Helper()
	command := exec.Command("/bin/sh", "-c", "ulimit "+limit+` && exec "$0"`, must(os.Executable()))
	command.Env = append(os.Environ(), envPull+"="+ref, envDest+"="+dest, envKeys+"="+keys)
	out, err := command.CombinedOutput()
	return string(out), err
}

// TestPullWorksWith64OpenFiles: a hundred files, and as many connections as
// there are by default.
func TestPullWorksWith64OpenFiles(t *testing.T) {
	p := newParty(t)
	keys := p.keyFiles(t)
	files := map[string]int{"model.safetensors": 40 * segment}
	for i := range 100 {
		files[fmt.Sprintf("experts/%03d.safetensors", i)] = segment + i
	}
	src := source(files)
	for profile, options := range p.profiles() {
		ref := serve(t, ociserver.New()) + ":v3"
		push(t, p.client(remote()), ref, src, options())
		dest := filepath.Join(t.TempDir(), "model")
		if out, err := limited(t, "-n 64", ref, dest, keys); err != nil {
			t.Errorf("%s: %v: %s", profile, err, out)
			continue
		}
		sameFiles(t, dest, src)
	}
}

// TestFileTooLargeForTheDiskEndsThePull is EFBIG: files may have half of what
// the model needs.
func TestFileTooLargeForTheDiskEndsThePull(t *testing.T) {
	p := newParty(t)
	keys := p.keyFiles(t)
	src := source(map[string]int{"model.safetensors": 40 * segment})
	for profile, options := range p.profiles() {
		ref := serve(t, ociserver.New()) + ":v3"
		push(t, p.client(remote()), ref, src, options())
		dest := filepath.Join(t.TempDir(), "model")
		// In blocks of 512 bytes.
		out, err := limited(t, fmt.Sprintf("-f %d", 20*segment/512), ref, dest, keys)
		if err == nil || !strings.Contains(out, "file too large") {
			t.Errorf("%s: %v: %s", profile, err, out)
		}
		absent(t, dest)
		if _, err := p.client(remote()).Pull(t.Context(), ref, dest, p.policy(), nil); err != nil {
			t.Error(err)
		}
		sameFiles(t, dest, src)
	}
}
