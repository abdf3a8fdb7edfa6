// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// decodeStrict is strictjson.Unmarshal for our own documents, in which null is
// a value of the wrong type. encoding/json takes it for any type and changes
// nothing, so that "expires": null would read as "never".
func decodeStrict(data []byte, v any, limit int) error {
	if err := strictjson.Unmarshal(data, v, limit); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if tok == nil {
			return fmt.Errorf("%w: null at offset %d", strictjson.ErrSyntax, dec.InputOffset())
		}
	}
}

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

// printable reports whether s is short enough to show and has nothing in it that
// a terminal or a log would act on.
func printable(s string) bool {
	return len(s) <= maxName && utf8.ValidString(s) && strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// clip makes a string that others wrote fit for an error message that quotes it.
func clip(s string) string {
	const most = 128
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
