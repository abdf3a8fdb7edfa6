// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of a path in bytes. FORMAT.md §5.2.
const (
	maxPath      = 1024
	maxComponent = 255
)

// Reserved starts the names that this format keeps for itself at the top of a
// model. FORMAT.md §5.2.
const Reserved = ".modelsec"

// CheckPath holds one path to FORMAT.md §5.2. A path that passes is safe to
// create below a directory on every system we know; os.Root is the second
// line of defence, not the first.
func CheckPath(p string) error {
	if p == "" || len(p) > maxPath {
		return fmt.Errorf("path of %d bytes, want 1 to %d", len(p), maxPath)
	}
	if !utf8.ValidString(p) {
		return fmt.Errorf("path %q is not UTF-8", truncate(p))
	}
	if i := strings.IndexFunc(p, unsafeRune); i >= 0 {
		r, _ := utf8.DecodeRuneInString(p[i:])
		return fmt.Errorf("path %q holds the character %U", truncate(p), r)
	}
	for i, c := range strings.Split(p, "/") {
		switch {
		case c == "" || c == "." || c == "..":
			return fmt.Errorf("path %q is not a clean relative path", truncate(p))
		case len(c) > maxComponent:
			return fmt.Errorf("path %q has a component of %d bytes, limit %d", truncate(p), len(c), maxComponent)
		case strings.HasSuffix(c, ".") || strings.HasSuffix(c, " "):
			return fmt.Errorf("path %q has a component that ends in a dot or a space", truncate(p))
		case isDevice(c):
			return fmt.Errorf("path %q names a device on Windows", truncate(p))
		case i == 0 && strings.HasPrefix(fold(c), fold(Reserved)):
			return fmt.Errorf("path %q starts with %s, which is reserved", truncate(p), Reserved)
		}
	}
	return nil
}

// unsafeRune reports characters that no file name needs: those that a terminal
// acts on or that show a name as another, and those that mean something else
// than a name on Windows.
func unsafeRune(r rune) bool {
	switch {
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return true
	case r == 0x200e, r == 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
		return true
	}
	return r == '\\' || r == ':'
}

// CheckPaths holds all paths of a model to FORMAT.md §5.2: each by itself, no
// two equal where case does not count, none a directory of another.
func CheckPaths(paths []string) error {
	files := make(map[string]string, len(paths))
	for _, p := range paths {
		if err := CheckPath(p); err != nil {
			return err
		}
		folded := fold(p)
		if other, ok := files[folded]; ok {
			return fmt.Errorf("paths %q and %q are one file where case does not count", truncate(other), truncate(p))
		}
		files[folded] = p
	}
	for _, p := range paths {
		folded := fold(p)
		for i := strings.LastIndexByte(folded, '/'); i >= 0; i = strings.LastIndexByte(folded[:i], '/') {
			if other, ok := files[folded[:i]]; ok {
				return fmt.Errorf("path %q is a directory of %q", truncate(other), truncate(p))
			}
		}
	}
	return nil
}

// isDevice reports the names that Windows opens as devices in any directory.
func isDevice(component string) bool {
	stem, _, _ := strings.Cut(strings.ToUpper(component), ".")
	stem = strings.TrimRight(stem, " ")
	switch stem {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(stem) == 4 && (stem[:3] == "COM" || stem[:3] == "LPT") && stem[3] >= '0' && stem[3] <= '9'
}

// fold maps strings that are equal under simple Unicode case folding to one.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, s)
}
