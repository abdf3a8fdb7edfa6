// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
)

// Errors that callers decide by. All of them come wrapped in an [*Error].
var (
	// ErrNotFound: the repository, manifest, blob or tag is not there.
	ErrNotFound = errors.New("not found")

	// ErrUnauthorized: no credential was found, or it was refused.
	ErrUnauthorized = errors.New("unauthorized")

	// ErrUnsupported: the store does not do this at all, such as a registry
	// that was set up without deletion.
	ErrUnsupported = errors.New("unsupported by the store")

	// ErrLimit: something is larger than this package accepts.
	ErrLimit = errors.New("over the limit")

	// ErrRangeIgnored: a request for a range was answered with something else
	// than exactly that range. The host can only be read by whole blobs.
	ErrRangeIgnored = errors.New("range not honoured")

	// ErrUploadForm: the registry does not take this blob in this form of
	// upload, and may take it in the other: by Put what Create could not
	// send, or the reverse.
	ErrUploadForm = errors.New("registry wants another form of upload")

	// ErrStalled: no answer within 30 seconds, or a body that moved less than
	// 32 KiB in 30 seconds of waiting.
	ErrStalled = errors.New("stalled")

	// ErrInvalid: a manifest, listing or reply does not mean one thing, or not
	// what was asked for; digests that do not match are such.
	ErrInvalid = errors.New("invalid content")
)

// Error says what failed and where. It never holds a secret, nor the query of
// an address, which may be one.
type Error struct {
	Op         string // The operation: "resolve", "fetch", "commit", …
	Host       string // Host and port; empty for layouts and memory.
	Repository string // Path on the host, or the name of a local store.
	Reference  string // Tag or digest; may be empty.
	Status     int    // HTTP status of the reply that ended it; 0: none.
	Err        error
}

// Error says all of it in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("registry: ")
	b.WriteString(e.Op)
	b.WriteByte(' ')
	if e.Host != "" {
		b.WriteString(e.Host)
		b.WriteByte('/')
	}
	b.WriteString(e.Repository)
	if e.Reference != "" {
		b.WriteByte(' ')
		b.WriteString(e.Reference)
	}
	if e.Status != 0 {
		b.WriteString(": status ")
		b.WriteString(strconv.Itoa(e.Status))
	}
	if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same operation may succeed later: the
// connection broke or stalled, or the server was busy or failed.
func (e *Error) Temporary() bool {
	return temporaryStatus(e.Status) || temporary(e.Err)
}

func temporaryStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return status >= 500
}

// temporary reports whether err is a failure of the connection. Certificates
// that do not verify, refused addresses and names that do not exist stay as
// they are however often one tries.
func temporary(err error) bool {
	var dns *net.DNSError
	var op *net.OpError
	var timeout net.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errForbiddenAddress):
		return false
	case errors.Is(err, ErrStalled), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE):
		return true
	case errors.As(err, &dns):
		return !dns.IsNotFound
	case errors.As(err, &timeout) && timeout.Timeout():
		return true
	case errors.As(err, &op):
		// crypto/tls reports alerts under these two names.
		return op.Op != "remote error" && op.Op != "local error"
	}
	return false
}

var errWriterClosed = errors.New("blob writer is closed or committed")

var errReaderClosed = errors.New("reader is closed")
