// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The ends of the table in FIPS 180-4 §4.2.2.
func TestCubeRootsAreThoseOfTheStandard(t *testing.T) {
	k := cubeRoots()
	for i, want := range map[int]uint32{0: 0x428a2f98, 1: 0x71374491, 31: 0x14292967, 62: 0xbef9a3f7, 63: 0xc67178f2} {
		if k[i] != want {
			t.Errorf("K%d: got %08x, want %08x", i, k[i], want)
		}
	}
}

func TestCommittedAssemblyIsWhatTheGeneratorWrites(t *testing.T) {
	dir := t.TempDir()
	assembly, stubs := filepath.Join(dir, "blocks_amd64.s"), filepath.Join(dir, "blocks_amd64.go")
	if out, err := exec.Command("go", "run", ".", "-out", assembly, "-stubs", stubs, "-pkg", "digest").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{assembly, stubs} {
		got, want := body(t, name), body(t, filepath.Join("..", filepath.Base(name)))
		if !bytes.Equal(got, want) {
			t.Errorf("%s is stale: run go generate", filepath.Base(name))
		}
	}
}

// body is a file without its first line, which names the command that wrote it.
func body(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	return rest
}
