// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"io/fs"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestEveryFaultHasItsTest holds docs/FAULTS.md to the source: every row has a
// test, and every test that it names is one.
func TestEveryFaultHasItsTest(t *testing.T) {
	var tests strings.Builder
	err := fs.WalkDir(os.DirFS(".."), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") {
			return err
		}
		// The rules of a contract stand in files of their own.
		if strings.HasSuffix(p, "_test.go") || strings.Contains(p, "registrytest/") {
			b, err := os.ReadFile("../" + p)
			tests.Write(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	document := string(must(os.ReadFile("../docs/FAULTS.md")))
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)(?:/([A-Za-z0-9_]+))?`")
	rows := make(map[int]bool)
	for line := range strings.Lines(document) {
		number, rest, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		row, err := strconv.Atoi(number)
		if !ok || err != nil {
			continue
		}
		found := named.FindAllStringSubmatch(rest, -1)
		rows[row] = len(found) > 0
		for _, m := range found {
			if !strings.Contains(tests.String(), "\nfunc "+m[1]+"(") {
				t.Errorf("row %d names %s, which is no test", row, m[1])
			}
			if m[2] != "" && !strings.Contains(tests.String(), `"`+m[2]+`"`) {
				t.Errorf("row %d names %s/%s, which is no part of a test", row, m[1], m[2])
			}
		}
	}
	for _, r := range [][2]int{{1, 60}, {70, 71}} {
		for row := r[0]; row <= r[1]; row++ {
			if !rows[row] {
				t.Errorf("row %d has no test", row)
			}
		}
	}
}
