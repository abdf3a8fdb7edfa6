// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// scanner reads the JSON of a header or index as it streams by: either may have
// 100 MB, and encoding/json would keep any one string of it whole.
type scanner struct {
	r     *bufio.Reader
	at    int64 // bytes read
	ended bool
	err   error // of the reader
}

// Bounds of values that are read over.
const (
	maxDepth = 16
	maxWord  = 64 // bytes of a number
)

func newScanner(r io.Reader) *scanner { return &scanner{r: bufio.NewReaderSize(r, 64<<10)} }

// fault is an error about the byte before the scanner's place. Where reading
// failed, that is the error.
func (s *scanner) fault(format string, args ...any) error {
	if s.err != nil {
		return s.err
	}
	return fmt.Errorf("%w: JSON byte %d: %s", tensor.ErrFormat, s.at, fmt.Sprintf(format, args...))
}

// next reads a byte; 0, which stands nowhere in JSON, at the end.
func (s *scanner) next() byte {
	b, err := s.r.ReadByte()
	if err != nil {
		s.ended = true
		if err != io.EOF && s.err == nil {
			s.err = err
		}
		return 0
	}
	s.at++
	return b
}

// token reads the next byte that is no white space.
func (s *scanner) token() byte {
	for {
		switch b := s.next(); b {
		case ' ', '\t', '\n', '\r':
		default:
			return b
		}
	}
}

// expect demands one token.
func (s *scanner) expect(want byte) error {
	if got := s.token(); got != want {
		return s.fault("got %q, want %q", got, want)
	}
	return nil
}

// each reads what stands between an opening bracket, which was read, and its
// closing one: values that item reads, with commas between them. item begins
// after the first byte of its value.
func (s *scanner) each(closing byte, item func(first byte) error) error {
	b := s.token()
	if b == closing {
		return nil
	}
	for {
		if err := item(b); err != nil {
			return err
		}
		switch b = s.token(); b {
		case closing:
			return nil
		case ',':
			b = s.token()
		default:
			return s.fault("got %q, want a comma or %q", b, closing)
		}
	}
}

// object reads the members of an object whose opening bracket was read. member
// begins after the colon.
func (s *scanner) object(member func(key string) error) error {
	return s.each('}', func(first byte) error {
		key, err := s.text(first)
		if err != nil {
			return err
		}
		if err := s.expect(':'); err != nil {
			return err
		}
		return member(key)
	})
}

// text reads a string that is kept, given its first byte.
func (s *scanner) text(first byte) (string, error) {
	if first != '"' {
		return "", s.fault("got %q, want a string", first)
	}
	var out []byte
	err := s.runes(func(r rune) error {
		if out = utf8.AppendRune(out, r); len(out) > tensor.MaxName {
			return s.fault("a string of more than %d bytes", tensor.MaxName)
		}
		return nil
	})
	return string(out), err
}

// skipText reads a string of any length and forgets it.
func (s *scanner) skipText() error {
	if err := s.expect('"'); err != nil {
		return err
	}
	return s.runes(func(rune) error { return nil })
}

// runes reads to the end of a string, and refuses what is not UTF-8 and
// escapes that stand for no character.
func (s *scanner) runes(yield func(rune) error) error {
	for {
		b := s.next()
		var r rune
		switch {
		case b == '"':
			return nil
		case b < 0x20:
			return s.fault("got %q in a string", b)
		case b == '\\':
			if r = s.escape(); r < 0 {
				return s.fault("a bad escape in a string")
			}
		case b < utf8.RuneSelf:
			r = rune(b)
		default:
			if r = s.multibyte(b); r < 0 {
				return s.fault("a string that is not UTF-8")
			}
		}
		if err := yield(r); err != nil {
			return err
		}
	}
}

// multibyte reads the rest of a character of several bytes, or returns -1.
func (s *scanner) multibyte(first byte) rune {
	buf := [utf8.UTFMax]byte{first}
	for n := 1; n < len(buf); n++ {
		buf[n] = s.next()
		if utf8.FullRune(buf[:n+1]) {
			if r, size := utf8.DecodeRune(buf[:n+1]); size == n+1 {
				return r
			}
			return -1
		}
	}
	return -1
}

// escape reads what follows a backslash, or returns -1.
func (s *scanner) escape() rune {
	switch b := s.next(); b {
	case '"', '\\', '/':
		return rune(b)
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'u':
		r := s.hex()
		if !utf16.IsSurrogate(r) {
			return r
		}
		if s.next() != '\\' || s.next() != 'u' {
			return -1
		}
		if r = utf16.DecodeRune(r, s.hex()); r != utf8.RuneError {
			return r
		}
	}
	return -1
}

func (s *scanner) hex() (r rune) {
	for range 4 {
		switch b := s.next(); {
		case b >= '0' && b <= '9':
			r = r<<4 | rune(b-'0')
		case b >= 'a' && b <= 'f':
			r = r<<4 | rune(b-'a'+10)
		case b >= 'A' && b <= 'F':
			r = r<<4 | rune(b-'A'+10)
		default:
			return -1
		}
	}
	return r
}

// integers reads an array of at most n whole numbers from 0 to 2^63-1.
func (s *scanner) integers(n int) (list []int64, err error) {
	if err := s.expect('['); err != nil {
		return nil, err
	}
	err = s.each(']', func(first byte) error {
		v, err := s.integer(first)
		if err == nil && len(list) == n {
			err = s.fault("more than %d numbers", n)
		}
		list = append(list, v)
		return err
	})
	return list, err
}

// integer reads a whole number, given its first byte.
func (s *scanner) integer(first byte) (n int64, err error) {
	if first < '0' || first > '9' {
		return 0, s.fault("got %q, want a whole number from 0 to 2^63-1", first)
	}
	n = int64(first - '0')
	for {
		b := s.next()
		if b < '0' || b > '9' {
			if b == '.' || b == 'e' || b == 'E' {
				return 0, s.fault("a number that is not written as a whole one")
			}
			s.back()
			return n, s.err
		}
		if n == 0 {
			return 0, s.fault("a number that begins with 0")
		}
		d := int64(b - '0')
		if n > (math.MaxInt64-d)/10 {
			return 0, s.fault("a number over 2^63-1")
		}
		n = 10*n + d
	}
}

// back returns the byte that was read one too far.
func (s *scanner) back() {
	if !s.ended {
		s.r.UnreadByte()
		s.at--
	}
}

// skip reads a value of any kind, given its first byte, and forgets it.
func (s *scanner) skip(first byte, depth int) error {
	switch {
	case depth == maxDepth:
		return s.fault("nested deeper than %d levels", maxDepth)
	case first == '{':
		return s.each('}', func(first byte) error {
			if first != '"' {
				return s.fault("got %q, want a string", first)
			}
			if err := s.runes(func(rune) error { return nil }); err != nil {
				return err
			}
			if err := s.expect(':'); err != nil {
				return err
			}
			return s.skip(s.token(), depth+1)
		})
	case first == '[':
		return s.each(']', func(first byte) error { return s.skip(first, depth+1) })
	case first == '"':
		return s.runes(func(rune) error { return nil })
	}
	return s.skipWord(first)
}

// skipWord reads a number, true, false or null.
func (s *scanner) skipWord(first byte) error {
	word := []byte{first}
	for len(word) <= maxWord {
		b := s.next()
		if (b < '0' || b > '9') && (b < 'a' || b > 'z') && b != 'E' && b != '+' && b != '-' && b != '.' {
			s.back()
			break
		}
		word = append(word, b)
	}
	if len(word) > maxWord || !json.Valid(word) {
		return s.fault("%q is no value", word)
	}
	return s.err
}
