// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestImportsStayLight: model signing needs no Sigstore library, which keyless
// verifiers bring along.
func TestImportsStayLight(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	allowed := []string{"github.com/modelsec/modelsec-go", "github.com/opencontainers/go-digest"}
	for _, module := range strings.Fields(string(out)) {
		if !slices.Contains(allowed, module) {
			t.Errorf("links module %s", module)
		}
	}
}
