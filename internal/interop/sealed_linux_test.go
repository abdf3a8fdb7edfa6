// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestPythonLoadsARealModelFromSealedMemory: numpy and safetensors, with the
// module of examples/python, load every tensor of MiniLM as it was pushed, in a
// process that never saw a key, and cannot change it.
func TestPythonLoadsARealModelFromSealedMemory(t *testing.T) {
	model := folder(t, "MODELSEC_MODEL")
	python := program(t, "python3")
	if err := exec.Command(python, "-c", "import safetensors, numpy").Run(); err != nil {
		missing(t, "the Python packages safetensors and numpy")
	}
	module, err := filepath.Abs(filepath.Join("..", "..", "examples", "python"))
	if err != nil {
		t.Fatal(err)
	}
	check, err := filepath.Abs(filepath.Join("testdata", "tensors", "sealed.py"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCommand(t)
	c.env = append(c.env, "PYTHONPATH="+module, "PYTHONDONTWRITEBYTECODE=1")
	ref := "oci:" + filepath.Join(t.TempDir(), "layout") + ":v1"
	c.run(t, 0, "push", model, ref, "--name", "team/minilm", "--sign-key", c.key("signing.key"), "--recipient", c.key("identity.pub"))
	read := []string{"exec", ref, "--name", "team/minilm", "--key", c.key("signing.pub"), "--identity", c.key("identity.key")}
	got := c.run(t, 0, append(read, "--", python, check, model)...)
	if n, err := strconv.Atoi(strings.TrimSpace(got.stdout)); err != nil || n < 100 {
		t.Errorf("%q tensors were compared", got.stdout)
	}
	norms := c.run(t, 0, append(read, "--file", "model.safetensors", "--", python, filepath.Join(module, "norms.py"))...)
	if !strings.Contains(norms.stdout, "embeddings.word_embeddings.weight float32 [30522, 384]") {
		t.Errorf("the example printed %q", norms.stdout)
	}
	c.run(t, 4, "exec", ref, "--name", "team/minilm", "--key", c.key("signing.pub"), "--", python, check, model)
}
