// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/modelsec/modelsec-go/modelsec"
)

// hostile is what somebody who wants to fool a terminal writes: an escape
// sequence, a line that looks like ours, C1 and bidirectional controls.
const hostile = "a\x1b[31mb\nallowed: x\r\u009b31m\u202egpj.exe\x00"

func TestInspectShowsNoControlCharacters(t *testing.T) {
	info := &modelsec.Info{
		Files:        []modelsec.File{{Name: hostile, Role: hostile, Size: 1}},
		Attestations: []modelsec.Attestation{{PredicateType: hostile}},
	}
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		tool := &tool{stdout: &out, json: asJSON}
		found := inspection(info)
		if err := tool.result(found, found.print); err != nil {
			t.Fatal(err)
		}
		for _, r := range strings.ReplaceAll(out.String(), "\n", "") {
			if !unicode.IsPrint(r) {
				t.Errorf("json %t: output holds %q", asJSON, r)
			}
		}
		if asJSON && strings.Contains(out.String(), `\u00`) {
			t.Errorf("JSON escapes a control character that jq -r would print:\n%s", &out)
		}
		if strings.Contains(out.String(), "\nallowed") {
			t.Errorf("json %t: text of others begins a line", asJSON)
		}
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	var stderr bytes.Buffer
	tool := &tool{stderr: &stderr, started: true}
	tool.fail(t.Context(), nil, usagef("%s", hostile).hinted("%s", hostile))
	if n := strings.Count(stderr.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want the error and the hint:\n%q", n, &stderr)
	}
	for _, r := range strings.ReplaceAll(stderr.String(), "\n", "") {
		if !unicode.IsPrint(r) {
			t.Errorf("output holds %q", r)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{
		"256MiB": 256 << 20, "1.5GiB": 3 << 29, "128M": 128 << 20, "100MB": 100e6, "268435456": 256 << 20, "268435456B": 256 << 20,
	} {
		var s size
		if err := s.Set(text); err != nil || int64(s) != want {
			t.Errorf("%q: %d, %v, want %d", text, int64(s), err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1GiB", "NaN", "1e30", "10 apples", "63MiB", "1GiBGiB"} {
		var s size
		if err := s.Set(text); err == nil {
			t.Errorf("%q: taken as %d", text, int64(s))
		}
	}
}
