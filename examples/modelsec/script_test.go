// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scripts run the command as a process, so that statuses, streams and
// signals are those that a shell sees.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"modelsec": main, "modelsec-helper-file": fileHelper})
}

// TestLayout needs nothing but a disk.
func TestLayout(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: isolate, Cmds: commands, RequireExplicitExec: true})
}

// TestRegistry needs Debian's docker-registry as a process.
func TestRegistry(t *testing.T) {
	deleting, keeping := startRegistry(t, true), startRegistry(t, false)
	gate, certificate := startGate(t, deleting)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "registry"),
		Setup: func(env *testscript.Env) error {
			env.Setenv("REGISTRY", deleting)
			env.Setenv("KEEPING_REGISTRY", keeping)
			env.Setenv("GATE", gate)
			return errors.Join(writeGate(env.WorkDir, gate, certificate), isolate(env))
		},
		Cmds: commands, RequireExplicitExec: true,
	})
}

// isolate keeps the credentials and the policy of the user out of the test.
func isolate(env *testscript.Env) error {
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
	env.Setenv("MODELSEC_POLICY", "")
	return nil
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"status":  expectStatus,
	"random":  randomFile,
	"last":    lastLine,
	"field":   jsonField,
	"tamper":  tamper,
	"strip":   strip,
	"bundles": bundles,
	"embed":   embed,
	"expand":  expand,
	"sameDir": sameDir,
}

// status N program args… wants exit status N.
func expectStatus(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil {
		ts.Fatalf("usage: status N program args…")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("status %d, want %d", got, want)
	}
}

// random FILE SIZE writes the same bytes at every run.
func randomFile(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := make([]byte, n)
	_, err = rand.NewChaCha8([32]byte{}).Read(b)
	ts.Check(err)
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, b, 0o644))
}

// last VAR sets a variable to the last line of standard output.
func lastLine(ts *testscript.TestScript, _ bool, args []string) {
	lines := strings.Split(strings.TrimSpace(ts.ReadFile("stdout")), "\n")
	ts.Setenv(args[0], lines[len(lines)-1])
}

// field VAR PATH sets a variable to a member of the JSON on standard output,
// which must be one document.
func jsonField(ts *testscript.TestScript, _ bool, args []string) {
	dec := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	var v any
	ts.Check(dec.Decode(&v))
	if dec.More() {
		ts.Fatalf("more than one document on standard output")
	}
	for _, name := range strings.Split(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[name]
		case []any:
			i, err := strconv.Atoi(name)
			ts.Check(err)
			if i >= len(x) {
				ts.Fatalf("%s: %d elements", args[1], len(x))
			}
			v = x[i]
		}
		if v == nil {
			ts.Fatalf("%s: nothing at %s", args[1], name)
		}
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// tamper LAYOUT flips a bit in the middle of the largest blob.
func tamper(ts *testscript.TestScript, _ bool, args []string) {
	var largest string
	var size int64
	dir := filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	ts.Check(err)
	for _, e := range entries {
		info, err := e.Info()
		ts.Check(err)
		if info.Size() > size {
			largest, size = filepath.Join(dir, e.Name()), info.Size()
		}
	}
	b, err := os.ReadFile(largest)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.Chmod(largest, 0o644))
	ts.Check(os.WriteFile(largest, b, 0o644))
}

// strip LAYOUT removes everything from its listing that has no tag:
// attestations and grants.
func strip(ts *testscript.TestScript, _ bool, args []string) {
	path := filepath.Join(ts.MkAbs(args[0]), "index.json")
	var index map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(path)), &index))
	var kept []any
	for _, m := range index["manifests"].([]any) {
		if a, ok := m.(map[string]any)["annotations"].(map[string]any); ok && a["org.opencontainers.image.ref.name"] != nil {
			kept = append(kept, m)
		}
	}
	index["manifests"] = kept
	b, err := json.Marshal(index)
	ts.Check(err)
	ts.Check(os.WriteFile(path, b, 0o644))
}

// bundles LAYOUT copies the attestations of a push out of a layout: the
// provenance, the release and the signature of the grant become 0.bundle to
// 2.bundle, in no particular order.
func bundles(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256")
	entries, err := os.ReadDir(dir)
	ts.Check(err)
	n := 0
	for _, e := range entries {
		text := ts.ReadFile(filepath.Join(dir, e.Name()))
		if strings.HasPrefix(text, `{"mediaType":"application/vnd.dev.sigstore.bundle`) {
			ts.Check(os.WriteFile(ts.MkAbs(fmt.Sprintf("%d.bundle", n)), []byte(text), 0o644))
			n++
		}
	}
	if n != 3 {
		ts.Fatalf("%d attestations, want 3", n)
	}
}

// embed DST SRC KEY [WORD] puts the PEM file KEY in place of the word, or of KEY,
// in a policy.
func embed(ts *testscript.TestScript, _ bool, args []string) {
	key, err := json.Marshal(ts.ReadFile(args[2]))
	ts.Check(err)
	word := "KEY"
	if len(args) > 3 {
		word = args[3]
	}
	text := strings.ReplaceAll(ts.ReadFile(args[1]), strconv.Quote(word), string(key))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// expand DST SRC replaces ${NAME} in a file by the variable, and ${NAME#} by the
// hexadecimal digits of the digest in it.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[1]), func(name string) string {
		bare, cut := strings.CutSuffix(name, "#")
		value := ts.Getenv(bare)
		if cut {
			value = strings.TrimPrefix(value, "sha256:")
		}
		return value
	})
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// sameDir A B wants the same files with the same content.
func sameDir(ts *testscript.TestScript, _ bool, args []string) {
	a, b := files(ts, args[0]), files(ts, args[1])
	if len(a) != len(b) {
		ts.Fatalf("%d files in %s, %d in %s", len(a), args[0], len(b), args[1])
	}
	for name, content := range a {
		if !bytes.Equal(content, b[name]) {
			ts.Fatalf("%s differs", name)
		}
	}
}

func files(ts *testscript.TestScript, dir string) map[string][]byte {
	out := make(map[string][]byte)
	root := os.DirFS(ts.MkAbs(dir))
	ts.Check(fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path], err = fs.ReadFile(root, path)
		return err
	}))
	return out
}
