// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
)

// result prints what a verb found: v as JSON where that was asked for, else
// what text writes.
func (t *tool) result(v any, text func(w io.Writer)) error {
	if t.json {
		return t.encode(v)
	}
	text(t.stdout)
	return nil
}

// pinnedResult is result where the text is one reference by digest.
func (t *tool) pinnedResult(v any, ref string) error {
	return t.result(v, func(w io.Writer) { fmt.Fprintln(w, ref) })
}

func (t *tool) encode(v any) error {
	enc := json.NewEncoder(t.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// say prints a line for people to standard error.
func (t *tool) say(format string, args ...any) {
	fmt.Fprintf(t.stderr, "%s\n", oneLine(fmt.Sprintf(format, args...)))
}

// visible drops what a terminal or a log would act on from text that others
// wrote.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

// oneLine is visible, and keeps joined errors apart.
func oneLine(s string) string {
	return visible(strings.ReplaceAll(strings.TrimSpace(s), "\n", "; "))
}

// plural counts things.
func plural(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}
