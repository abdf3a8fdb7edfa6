// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gguf

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// cursor reads a file from its beginning. After the first error it returns
// zeros, so that callers check where it matters.
type cursor struct {
	file  io.ReaderAt
	r     *bufio.Reader
	size  int64
	at    int64
	err   error
	fixes [8]byte
}

func newCursor(file io.ReaderAt, size int64) *cursor {
	c := &cursor{file: file, size: size}
	c.r = bufio.NewReaderSize(io.NewSectionReader(file, 0, size), 64<<10)
	return c
}

// fault is an error about the cursor's place.
func (c *cursor) fault(format string, args ...any) error {
	if c.err != nil {
		return c.err
	}
	return fmt.Errorf("%w: byte %d: %s", tensor.ErrFormat, c.at, fmt.Sprintf(format, args...))
}

func (c *cursor) fail(err error) {
	if c.err != nil {
		return
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = c.fault("the file ends within its header")
	}
	c.err = err
}

// fixed reads n bytes, at most 8, that are valid until the next call.
func (c *cursor) fixed(n int) []byte {
	b := c.fixes[:n]
	if c.err == nil {
		if _, err := io.ReadFull(c.r, b); err != nil {
			c.fail(err)
		} else {
			c.at += int64(n)
		}
	}
	if c.err != nil {
		clear(b)
	}
	return b
}

// bytes reads n bytes, which the caller bounded.
func (c *cursor) bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		c.fail(err)
		return nil
	}
	c.at += int64(n)
	return b
}

// skip passes over n bytes. What is not in the buffer is not read at all.
func (c *cursor) skip(n int64) {
	if c.err != nil {
		return
	}
	if n > c.size-c.at {
		c.fail(c.fault("%d bytes of metadata in the %d that are left", n, c.size-c.at))
		return
	}
	c.at += n
	if n <= int64(c.r.Buffered()) {
		c.r.Discard(int(n))
		return
	}
	c.r.Reset(io.NewSectionReader(c.file, c.at, c.size-c.at))
}

// value passes over a value of metadata.
func (c *cursor) value(kind uint32) {
	switch {
	case kind == kindString:
		c.skipText()
	case kind == kindArray:
		c.array()
	case kind < uint32(len(widths)) && widths[kind] > 0:
		c.skip(widths[kind])
	default:
		c.fail(c.fault("a value of unknown type %d", kind))
	}
}

func (c *cursor) skipText() {
	n := c.length(1)
	if n > maxString {
		c.fail(c.fault("a string of %d bytes, limit %d", n, maxString))
	}
	c.skip(n)
}

// array passes over an array. Like ggml it knows none of arrays.
func (c *cursor) array() {
	switch kind := c.uint32(); {
	case kind == kindString:
		for n := c.length(8); n > 0 && c.err == nil; n-- {
			c.skipText()
		}
	case kind < uint32(len(widths)) && widths[kind] > 0:
		c.skip(c.length(widths[kind]) * widths[kind])
	default:
		c.fail(c.fault("an array of unknown type %d", kind))
	}
}
