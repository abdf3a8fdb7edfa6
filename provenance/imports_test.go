// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImportsStayLight: whoever verifies a model links this package, the
// standard library and one module for digests.
func TestImportsStayLight(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range strings.Fields(string(out)) {
		switch module {
		case "github.com/modelsec/modelsec-go", "github.com/opencontainers/go-digest":
		default:
			t.Errorf("links module %s", module)
		}
	}
}
