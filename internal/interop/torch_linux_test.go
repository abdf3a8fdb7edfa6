// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// pythonWithTorch returns the Python that MODELSEC_PYTHON_TORCH names, or the
// usual one, where it has torch and the packages.
func pythonWithTorch(t *testing.T, packages ...string) string {
	t.Helper()
	python := os.Getenv("MODELSEC_PYTHON_TORCH")
	if python == "" {
		python = program(t, "python3")
	}
	packages = append([]string{"torch", "safetensors.torch"}, packages...)
	if out, err := exec.Command(python, "-c", "import "+strings.Join(packages, ", ")).CombinedOutput(); err != nil {
		missing(t, "a Python with "+strings.Join(packages, ", ")+", named by MODELSEC_PYTHON_TORCH ("+lastLine(out)+")")
	}
	return python
}

func lastLine(out []byte) string {
	text := strings.TrimSpace(string(out))
	return text[strings.LastIndex(text, "\n")+1:]
}

// checkTensors runs a script that compares a model with the directory that was
// pushed, and expects it to print how many tensors it compared.
func checkTensors(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok {
		t.Fatalf("%v\n%s", err, exit.Stderr)
	} else if err != nil {
		t.Fatal(err)
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(out))); err != nil || n < 100 {
		t.Errorf("%q tensors were compared", out)
	}
}

// TestTorchLoadsARealModelFromSealedMemory with the module of examples/python.
func TestTorchLoadsARealModelFromSealedMemory(t *testing.T) {
	model, python := folder(t, "MODELSEC_MODEL"), pythonWithTorch(t)
	module, err := filepath.Abs(filepath.Join("..", "..", "examples", "python"))
	if err != nil {
		t.Fatal(err)
	}
	c := newCommand(t)
	ref := "oci:" + filepath.Join(t.TempDir(), "layout") + ":v1"
	c.run(t, 0, "push", model, ref, "--name", "team/minilm", "--sign-key", c.key("signing.key"), "--recipient", c.key("identity.pub"))
	check := exec.Command(c.path, "exec", ref, "--name", "team/minilm", "--key", c.key("signing.pub"), "--identity", c.key("identity.key"), "--",
		python, "-B", filepath.Join("testdata", "tensors", "weights_torch.py"), model)
	check.Env = append(c.env, "PYTHONPATH="+module)
	checkTensors(t, check)
}

// TestTorchLoadsARealModelThroughTheGateway: whole files with boto3, and as
// vLLM does, with Run:ai's streamer, that has nothing but the variables that the
// gateway wrote.
func TestTorchLoadsARealModelThroughTheGateway(t *testing.T) {
	model := folder(t, "MODELSEC_MODEL")
	python := pythonWithTorch(t, "boto3", "runai_model_streamer", "runai_model_streamer_s3")
	g := startGateway(t, newCommand(t), model, "--listen", "127.0.0.1:0")
	for name, script := range map[string]string{"boto3": "weights_torch.py", "streamer": "streamer.py"} {
		t.Run(name, func(t *testing.T) {
			check := exec.Command(python, "-B", filepath.Join("testdata", "tensors", script), model)
			check.Env = append(cleanEnv(t), g.variables(t)...)
			checkTensors(t, check)
		})
	}
}
