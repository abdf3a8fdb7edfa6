// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The budget: what a program that imports this package links at most. Measured
// with sigstore-go v1.3.0: 84 modules, 370 packages, 16 MB of a stripped binary.
const (
	maxModules  = 85
	maxPackages = 380
)

func TestDependencyBudget(t *testing.T) {
	b, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{$.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	modules, packages := make(map[string]bool), 0
	for line := range strings.Lines(string(b)) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		modules[fields[0]] = true
		packages++
		for _, banned := range []string{"cosign/v2", "cosign/v3", "sigstore/fulcio", "trillian", "aws-sdk", "azure-sdk", "cloud.google", "google.golang.org/api", "k8s.io/client", "hashicorp/vault"} {
			if strings.Contains(fields[1], banned) {
				t.Errorf("links %s", fields[1])
			}
		}
	}
	if len(modules) > maxModules || packages > maxPackages || len(modules) < 10 {
		t.Errorf("links %d modules and %d packages, want at most %d and %d", len(modules), packages, maxModules, maxPackages)
	}
}

// TestRequirementsHaveReasons: what go.mod requires directly is what
// testdata/modules.txt lists.
func TestRequirementsHaveReasons(t *testing.T) {
	f, err := os.Open("testdata/modules.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	reasons := make(map[string]bool)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if module, reason, ok := strings.Cut(lines.Text(), " "); ok && !strings.HasPrefix(module, "#") && strings.TrimSpace(reason) != "" {
			reasons[module] = true
		}
	}
	b, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(b, &mod); err != nil {
		t.Fatal(err)
	}
	for _, r := range mod.Require {
		if r.Indirect {
			continue
		}
		if !reasons[r.Path] {
			t.Errorf("%s is required without a reason in testdata/modules.txt", r.Path)
		}
		delete(reasons, r.Path)
	}
	for path := range reasons {
		t.Errorf("testdata/modules.txt lists %s, which is not required", path)
	}
}
