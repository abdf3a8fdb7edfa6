// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package strictjson decodes JSON that an attacker may have written.
//
// encoding/json keeps the last of two equal keys and matches field names
// without regard to case, so two readers of one document can disagree about
// what it says. Everything decoded here means one thing: a repeated key, two
// keys that differ only in case, trailing data, invalid UTF-8, and a document
// over the caller's bounds are errors before a value is stored.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth bounds nesting. The deepest document the formats of this module
// define (a SLSA predicate inside a statement) needs fewer than 16 levels.
const MaxDepth = 32

// ErrSyntax is wrapped by every error about the shape of the document:
// repeated keys, unknown fields, depth, size, trailing data.
var ErrSyntax = errors.New("strict JSON")

// Unmarshal decodes data into v, which must be a non-nil pointer. Fields that
// v does not name are errors, names match by exact case, and null stands for
// nothing. maxBytes bounds the document; zero or less refuses everything.
func Unmarshal(data []byte, v any, maxBytes int) error {
	return unmarshal(data, v, maxBytes, true)
}

// UnmarshalLenient is Unmarshal for documents that others may extend (OCI
// manifests, predicates): unknown fields are ignored. Repeated keys are
// errors all the same, and a key that differs from a named field only in case
// is one too, because encoding/json would take it for the field.
func UnmarshalLenient(data []byte, v any, maxBytes int) error {
	return unmarshal(data, v, maxBytes, false)
}

func unmarshal(data []byte, v any, maxBytes int, strict bool) error {
	if len(data) > max(maxBytes, 0) {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrSyntax, len(data), max(maxBytes, 0))
	}
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	if !pairedSurrogates(data) {
		return fmt.Errorf("%w: escape of an unpaired surrogate", ErrSyntax)
	}
	w := walker{dec: json.NewDecoder(bytes.NewReader(data)), strict: strict}
	w.dec.UseNumber()
	if err := w.value(reflect.TypeOf(v), 0); err != nil {
		return err
	}
	if _, err := w.dec.Token(); err != io.EOF {
		return fmt.Errorf("%w: data after the document", ErrSyntax)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

// walker reads the document once as tokens beside the type it will be decoded
// into, before encoding/json gets to see it.
type walker struct {
	dec    *json.Decoder
	strict bool
}

var (
	rawMessage  = reflect.TypeFor[json.RawMessage]()
	unmarshaler = reflect.TypeFor[json.Unmarshaler]()
)

// value consumes one value. t is the Go type it lands in, or nil where the
// type says nothing about its fields.
func (w *walker) value(t reflect.Type, depth int) error {
	tok, err := w.dec.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	if _, nested := tok.(json.Delim); nested && depth == MaxDepth {
		return fmt.Errorf("%w: nested deeper than %d levels", ErrSyntax, MaxDepth)
	}
	t = shape(t)
	switch tok {
	case json.Delim('{'):
		return w.object(t, depth)
	case json.Delim('['):
		var elem reflect.Type
		if t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for w.dec.More() {
			if err := w.value(elem, depth+1); err != nil {
				return err
			}
		}
		return w.end()
	case nil:
		// encoding/json takes null for an absent member, whatever its type.
		if w.strict {
			return fmt.Errorf("%w: null at byte %d", ErrSyntax, w.dec.InputOffset())
		}
	case json.Number("-0"):
		if w.strict {
			return fmt.Errorf("%w: -0 at byte %d", ErrSyntax, w.dec.InputOffset())
		}
	}
	return nil
}

func (w *walker) object(t reflect.Type, depth int) error {
	var fields map[string]reflect.Type
	var elem reflect.Type
	switch {
	case t == nil:
	case t.Kind() == reflect.Struct:
		fields = fieldsOf(t)
	case t.Kind() == reflect.Map:
		elem = t.Elem()
	}
	seen := make(map[string]bool)
	for w.dec.More() {
		tok, err := w.dec.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrSyntax, err)
		}
		key, ok := tok.(string)
		if !ok {
			return fmt.Errorf("%w: object key is not a string", ErrSyntax)
		}
		if seen[key] {
			return fmt.Errorf("%w: key %q appears twice", ErrSyntax, key)
		}
		seen[key] = true
		ft := elem
		if fields != nil {
			var known bool
			if ft, known = fields[key]; !known {
				if w.strict {
					return fmt.Errorf("%w: unknown field %q", ErrSyntax, key)
				}
				for name := range fields {
					if strings.EqualFold(name, key) {
						return fmt.Errorf("%w: field %q must be spelled %q", ErrSyntax, key, name)
					}
				}
			}
		}
		if err := w.value(ft, depth+1); err != nil {
			return err
		}
	}
	return w.end()
}

// end consumes the bracket that closes the current object or array.
func (w *walker) end() error {
	if _, err := w.dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	return nil
}

// pairedSurrogates reports whether every escaped UTF-16 surrogate has its other
// half. encoding/json turns a lone one into U+FFFD, other readers refuse it or
// keep it. Outside of strings a backslash is a syntax error, found later.
func pairedSurrogates(data []byte) bool {
	for i := 0; i < len(data); {
		if data[i] != '\\' {
			i++
			continue
		}
		high, ok := escaped(data[i:])
		switch {
		case !ok:
			i += 2
		case !utf16.IsSurrogate(high):
			i += 6
		default:
			low, ok := escaped(data[i+6:])
			if !ok || utf16.DecodeRune(high, low) == unicode.ReplacementChar {
				return false
			}
			i += 12
		}
	}
	return true
}

// escaped decodes a \uXXXX escape at the start of b.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}

// shape follows pointers, and forgets types that decode themselves.
func shape(t reflect.Type) reflect.Type {
	for t != nil && t.Kind() == reflect.Pointer {
		if t.Implements(unmarshaler) && t.Elem().Kind() != reflect.Struct {
			return nil
		}
		t = t.Elem()
	}
	if t == nil || t == rawMessage || reflect.PointerTo(t).Implements(unmarshaler) {
		return nil
	}
	return t
}

// fieldsOf lists the JSON names of a struct, embedded structs included.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type)
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if f.Anonymous && name == "" {
			if e := shape(f.Type); e != nil && e.Kind() == reflect.Struct {
				for n, ft := range fieldsOf(e) {
					fields[n] = ft
				}
				continue
			}
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[name] = f.Type
	}
	return fields
}
