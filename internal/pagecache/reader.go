// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package pagecache reads files once and leaves the page cache of the system as
// it was. A model that is larger than memory would otherwise push everything out
// of it that others need, and the system would look for room for each of its
// pages: a fifth of the work of a push.
package pagecache

import "io"

// window is what is judged at a time: a system may read 8 MiB ahead.
const window = 16 << 20

// file is what the system has of one in its cache.
type file interface {
	cached(offset, length int64) bool // most of it
	drop(offset, length int64)
}

// Reader reads a stretch of a file. What was not in the cache when it began is
// not in it afterwards, where the system says so; other files, and systems that
// do not say, are read as they are.
type Reader struct {
	r     io.Reader
	file  file
	found []bool // windows that were in the cache
	at    int64
	end   int64
	left  int64 // where the present window begins
}

// NewReader returns a reader of r, which reads so many bytes of f from offset on.
func NewReader(r io.Reader, f any, offset, length int64) *Reader {
	return newReader(r, open(f), offset, length)
}

func newReader(r io.Reader, f file, offset, length int64) *Reader {
	p := &Reader{r: r, file: f, at: offset, end: offset + length, left: offset}
	for at := offset; f != nil && at < p.end; at += window {
		p.found = append(p.found, f.cached(at, min(window, p.end-at)))
	}
	return p
}

func (p *Reader) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.at += int64(n)
	for len(p.found) > 0 && (p.at-p.left >= window || p.at == p.end) {
		p.leave(min(window, p.at-p.left))
	}
	return n, err
}

// leave drops a window unless it had been found. Where it is not in the cache
// even now the system does not say what is, as with overlays.
func (p *Reader) leave(n int64) {
	if !p.found[0] && p.file.cached(p.left, n) {
		p.file.drop(p.left, n)
	}
	p.found = p.found[1:]
	p.left += n
}
