// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"fmt"
	"strings"
)

const (
	maxStderr = 4 << 10 // of what is kept
	maxQuoted = 512
	// maxWord is the longest run of digits and letters that may stay: a key of
	// 32 bytes has 43 in base64, 64 in hex, 63 and more in decimal numbers.
	maxWord = 40
)

// Readable returns what may be quoted of a program's words: printable ASCII
// without anything that could be encoded bytes. Text with any other byte in it
// may be a raw key and is withheld as a whole.
func Readable(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxStderr {
		text = text[:maxStderr]
	}
	if text == "" {
		return "it gave no reason"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return (r < ' ' || r > '~') && r != '\n' && r != '\r' && r != '\t' }) {
		return fmt.Sprintf("its %d bytes of reason are not printable", len(text))
	}
	var out strings.Builder
	for rest := strings.Join(strings.Fields(text), " "); rest != "" && out.Len() < maxQuoted; {
		n := run(rest)
		switch {
		case n == 0:
			out.WriteByte(rest[0])
			n = 1
		case n > maxWord:
			out.WriteString("...")
		default:
			out.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	return out.String()
}

// run returns how many bytes at the start of s may be one encoded string: of
// base64 and its like, or of hex and numbers with what stands between them. A
// long one without a capital is no base64 but a path.
func run(s string) int {
	word := span(s, func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/-_=%\\", r)
	})
	numbers := span(s, func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' || strings.ContainsRune(" ,:xX[]{}()", r)
	})
	if numbers > maxWord {
		return max(word, numbers)
	}
	if word > maxWord && strings.ToLower(s[:word]) == s[:word] {
		return maxWord
	}
	return word
}

// span returns how many bytes at the start of s are in the set.
func span(s string, in func(rune) bool) int {
	if n := strings.IndexFunc(s, func(r rune) bool { return !in(r) }); n >= 0 {
		return n
	}
	return len(s)
}
