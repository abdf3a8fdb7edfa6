// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package vectors finds the published test vectors, which tests read and the
// repository does not carry.
package vectors

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the folder of the named set of vectors ("floe", "wycheproof").
// MODELSEC_VECTORS names the folder that holds the sets. Without it the test is
// skipped by name, and fails where CI is "true", so that no vector goes untried
// in silence. A set that is missing from the folder fails the test everywhere.
func Dir(t *testing.T, set string) string {
	t.Helper()
	root := os.Getenv("MODELSEC_VECTORS")
	if root == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("MODELSEC_VECTORS is not set: the published %s vectors were not tried", set)
		}
		t.Skipf("MODELSEC_VECTORS is not set: skipping the published %s vectors", set)
	}
	dir := filepath.Join(root, set)
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		t.Fatalf("MODELSEC_VECTORS holds no folder %q", set)
	}
	return dir
}
