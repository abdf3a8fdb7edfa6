// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/gguf"
	"github.com/modelsec/modelsec-go/internal/safetensors"
	"github.com/modelsec/modelsec-go/internal/tensor/tensortest"
)

// seen is what a reader makes of one file.
type seen struct {
	Tensors []seenTensor `json:"tensors"`
	Refused string       `json:"refused"`
}

// seenTensor has what the reader tells: the digest of the bytes, or where they
// lie.
type seenTensor struct {
	Name   string   `json:"name"`
	DType  string   `json:"dtype"`
	Shape  []string `json:"shape"`
	SHA256 string   `json:"sha256"`
	At     int64    `json:"at"`
	Size   int64    `json:"size"`
}

// corpus writes cases to a directory, by name of file.
func corpus(t *testing.T, want func(c tensortest.Case) bool) (dir string, cases map[string]tensortest.Case) {
	t.Helper()
	dir, cases = t.TempDir(), make(map[string]tensortest.Case)
	for suffix, list := range map[string][]tensortest.Case{".safetensors": tensortest.SafetensorsCases(), ".gguf": tensortest.GGUFCases()} {
		for i, c := range list {
			if !want(c) {
				continue
			}
			name := fmt.Sprintf("%03d%s", i, suffix)
			cases[name] = c
			if err := os.WriteFile(filepath.Join(dir, name), c.File, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir, cases
}

// replay runs a reader over the corpus.
func replay(t *testing.T, cmd *exec.Cmd) map[string]seen {
	t.Helper()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var all map[string]seen
	if err := json.Unmarshal(out, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// ours is what our reader makes of a file, told as the other reader tells it.
func ours(t *testing.T, name string, file []byte, like []seenTensor) (list []seenTensor) {
	t.Helper()
	read := gguf.Read
	if strings.HasSuffix(name, ".safetensors") {
		read = safetensors.Read
	}
	tensors, err := read(bytes.NewReader(file), int64(len(file)), func(int64) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tensors {
		s := seenTensor{Name: x.Name, DType: x.DType, Shape: []string{}, At: x.Offset, Size: x.Size}
		for _, n := range x.Shape {
			s.Shape = append(s.Shape, fmt.Sprint(n))
		}
		if len(like) > 0 && like[0].SHA256 != "" {
			sum := sha256.New()
			io.Copy(sum, io.NewSectionReader(bytes.NewReader(file), x.Offset, x.Size))
			s.SHA256, s.At, s.Size = hex.EncodeToString(sum.Sum(nil)), 0, 0
		} else if len(like) > 0 && like[0].Size == 0 {
			s.Size = 0
		}
		list = append(list, s)
	}
	return list
}

// agrees compares what two readers see of a file that both take.
func agrees(t *testing.T, name string, c tensortest.Case, theirs []seenTensor) {
	t.Helper()
	mine := ours(t, name, c.File, theirs)
	for _, list := range [][]seenTensor{mine, theirs} {
		slices.SortFunc(list, func(a, b seenTensor) int { return cmp.Compare(a.Name, b.Name) })
	}
	if len(mine)+len(theirs) > 0 && !reflect.DeepEqual(mine, theirs) {
		t.Errorf("%s, %s: we see %+v, they %+v", name, c.Name, mine, theirs)
	}
}

// TestPythonReadersSeeTheSameTensors replays every case against the readers
// that define the formats. They take what we take and see the same in it; what
// we refuse they refuse, but for the cases that say why we are stricter.
func TestPythonReadersSeeTheSameTensors(t *testing.T) {
	python := program(t, "python3")
	if err := exec.Command(python, "-c", "import safetensors, gguf, numpy").Run(); err != nil {
		missing(t, "the Python packages safetensors, gguf and numpy")
	}
	dir, cases := corpus(t, func(tensortest.Case) bool { return true })
	refused, stricter := 0, 0
	for name, s := range replay(t, exec.Command(python, "-B", "testdata/tensors/readers.py", dir)) {
		c := cases[name]
		switch {
		case c.Valid && s.Refused != "":
			t.Errorf("%s, %s: we take it, they say %s", name, c.Name, s.Refused)
		case c.Valid:
			agrees(t, name, c, s.Tensors)
		case c.Stricter != "" && s.Refused != "":
			t.Errorf("%s, %s: they refuse it too: %s", name, c.Name, s.Refused)
		case c.Stricter == "" && s.Refused == "":
			t.Errorf("%s, %s: we refuse it, they see %+v", name, c.Name, s.Tensors)
		case c.Stricter != "":
			stricter++
		default:
			refused++
		}
	}
	t.Logf("%d files, %d refused by both, %d by us alone", len(cases), refused, stricter)
}

// TestJavaScriptReadersSeeTheSameTensors: they check less than the formats
// demand, so what they refuse says nothing. What we take they take, and see the
// same in it.
func TestJavaScriptReadersSeeTheSameTensors(t *testing.T) {
	node := program(t, "node")
	modules := folder(t, "MODELSEC_NODE_TENSORS")
	work := t.TempDir()
	script := filepath.Join(work, "readers.mjs")
	b, err := os.ReadFile("testdata/tensors/readers.mjs")
	if err == nil {
		err = os.WriteFile(script, b, 0o644)
	}
	if err == nil {
		err = os.Symlink(modules, filepath.Join(work, "node_modules"))
	}
	if err != nil {
		t.Fatal(err)
	}
	dir, cases := corpus(t, func(c tensortest.Case) bool { return c.Valid })
	for name, s := range replay(t, exec.Command(node, script, dir)) {
		if c := cases[name]; s.Refused != "" {
			t.Errorf("%s, %s: we take it, they say %s", name, c.Name, s.Refused)
		} else {
			agrees(t, name, c, s.Tensors)
		}
	}
}
