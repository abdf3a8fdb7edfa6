// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
)

// kserve publishes the schema of ClusterStorageContainer in its Go module.
const kserve = "github.com/kserve/kserve@v0.20.0"

// storageContainerSchema downloads it, checked against the checksum database.
func storageContainerSchema(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(program(t, "go"), "mod", "download", "-json", kserve)
	// Outside any module, so that none of ours comes to require it.
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil {
		missing(t, "the module "+kserve)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(module.Dir, "config", "crd", "full", "clusterstoragecontainer", "serving.kserve.io_clusterstoragecontainers.yaml")
}

// manifests are those of the storage initializer.
func manifests(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", "..", "examples", "kserve-storage-initializer", "deploy", "*.yaml"))
	if err != nil || len(paths) != 2 {
		t.Fatalf("manifests: %v, %v", paths, err)
	}
	return paths
}

func validate(t *testing.T, paths ...string) (string, error) {
	t.Helper()
	python := program(t, "python3")
	if exec.Command(python, "-c", "import kubernetes_validate").Run() != nil {
		missing(t, "the Python package kubernetes-validate")
	}
	cmd := exec.Command(python, append([]string{filepath.Join("testdata", "manifests.py"), storageContainerSchema(t)}, paths...)...)
	cmd.Env = append(cleanEnv(t), "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestManifestsAreWhatKubernetesAndKServePublish(t *testing.T) {
	if out, err := validate(t, manifests(t)...); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	// Would the check notice?
	for was, is := range map[string]string{"sizeLimit:": "sizelimit:", "prefix:": "prefixes:", "supportedUriFormats:": "uris:", "initContainers:": "init:"} {
		var changed string
		for _, path := range manifests(t) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(text), " "+was) {
				changed = filepath.Join(t.TempDir(), filepath.Base(path))
				if err := os.WriteFile(changed, []byte(strings.ReplaceAll(string(text), was, is)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if changed == "" {
			t.Errorf("no manifest has %q", was)
		} else if out, err := validate(t, changed); err == nil {
			t.Errorf("%s in place of %s is valid:\n%s", is, was, out)
		}
	}
}

func TestPolicyInTheManifestParses(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "kserve-storage-initializer", "deploy", "init-container.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "policy.json: |\n")
	policy, _, ended := strings.Cut(after, "---\n")
	if !found || !ended {
		t.Fatal("the manifest has no policy.json")
	}
	if _, err := provenance.ParsePolicy([]byte(policy)); err != nil {
		t.Error(err)
	}
}
