// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"errors"
	"io"
	"sync"
)

// body is a request body that holds a key. The transport may read it after the
// request returned, so that it cannot be wiped like any other buffer.
type body struct {
	mu    sync.Mutex
	bytes []byte // nil when wiped
}

// wipe zeroes the bytes. Readers find an error after it.
func (b *body) wipe() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.bytes)
	b.bytes = nil
}

// open returns a reader from the beginning, as the transport needs a second one
// where a connection turned out to be closed.
func (b *body) open() (io.ReadCloser, error) { return &bodyReader{b: b}, nil }

type bodyReader struct {
	b  *body
	at int
}

// Read implements io.Reader.
func (r *bodyReader) Read(p []byte) (int, error) {
	r.b.mu.Lock()
	defer r.b.mu.Unlock()
	switch {
	case r.b.bytes == nil:
		return 0, errors.New("vault: the request is over")
	case r.at == len(r.b.bytes):
		return 0, io.EOF
	}
	n := copy(p, r.b.bytes[r.at:])
	r.at += n
	return n, nil
}

// Close does nothing: the bytes are wiped when the request is over.
func (r *bodyReader) Close() error { return nil }
