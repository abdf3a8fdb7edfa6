// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os/exec"
	"strings"
	"testing"
)

// linkedModules lists the modules that a package links packages of.
func linkedModules(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := make(map[string]bool)
	for line := range strings.Lines(string(out)) {
		modules[strings.TrimSpace(line)] = true
	}
	return modules
}

// TestKeysCostNoModule: key services are reached through helpers, so that go
// install of the command fetches and links nothing for them.
func TestKeysCostNoModule(t *testing.T) {
	const root = "github.com/modelsec/modelsec-go"
	for m := range linkedModules(t, root+"/encrypt/keyuri") {
		switch m {
		case root, "github.com/opencontainers/go-digest", "golang.org/x/crypto":
		default:
			t.Errorf("encrypt/keyuri links %s", m)
		}
	}
	for m := range linkedModules(t, ".") {
		for _, service := range []string{"aws", "azure", "cloud.google.com/", "google.golang.org/api", "hashicorp/vault", "openbao", "pkcs11", "filippo.io/age", root + "/encrypt/"} {
			if strings.Contains(strings.ToLower(m), service) {
				t.Errorf("the command links %s", m)
			}
		}
	}
}
