// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// parseTime reads an RFC 3339 time. The zero time is refused, since the Go types
// use it for "no time".
func parseTime(s string) (time.Time, error) {
	var t time.Time
	if err := t.UnmarshalText([]byte(s)); err != nil {
		return time.Time{}, fmt.Errorf("time %q: want RFC 3339, as in 2027-06-01T00:00:00Z", clip(s))
	}
	if t.IsZero() {
		return time.Time{}, fmt.Errorf("time %q is the zero time", clip(s))
	}
	return t.UTC(), nil
}

// optionalMoment is parseTime for a member that may be absent.
func optionalMoment(s *string) (time.Time, error) {
	if s == nil {
		return time.Time{}, nil
	}
	return parseTime(*s)
}

func optionalTime(t time.Time) *string {
	if t.IsZero() {
		return nil
	}
	s := t.UTC().Format(time.RFC3339Nano)
	return &s
}

// printable reports whether s is short enough to show and has nothing in it that
// a terminal or a log would act on.
func printable(s string) bool {
	return len(s) <= maxName && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// clip makes a string that others wrote fit for an error message that quotes it.
func clip(s string) string { return clipAt(s, maxClip) }

func clipAt(s string, most int) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
