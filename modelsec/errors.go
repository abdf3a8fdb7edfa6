// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// Errors that callers decide by. All come wrapped in an [*Error]; a refusal by
// policy is a *provenance.PolicyError in the same place, and errors of the
// registry and encrypt packages keep their own identity.
var (
	// ErrFormat: the artifact breaks a rule of FORMAT.md.
	ErrFormat = errors.New("malformed artifact")

	// ErrDigest: bytes are not the ones that were attested, from any source
	// and after every retry.
	ErrDigest = errors.New("content does not match its attested digest")

	// ErrNoKey: no identity of the client opens the artifact.
	ErrNoKey = errors.New("no identity opens this artifact")

	// ErrUnpinned: the call needs a reference by digest, because it signs or
	// grants and a tag may have moved.
	ErrUnpinned = errors.New("needs a reference by digest")

	// ErrSource: the files to push cannot be published as they are, or
	// changed while they were read.
	ErrSource = errors.New("unsuitable source")

	// ErrLimit: something is larger than the format or the client allows.
	ErrLimit = errors.New("over the limit")

	// ErrConfig: the call contradicts itself or lacks something it needs.
	ErrConfig = errors.New("configuration")

	// ErrNoSpace: the disk, a quota or the largest size of a file does not admit
	// what Pull is to write. It is found before the first byte is fetched, where
	// the system says how much is free; the text says how much is needed. What was
	// fetched stays for the next attempt.
	ErrNoSpace = staging.ErrNoSpace

	// ErrAudit: the audit hook failed, so the operation was not performed.
	ErrAudit = errors.New("audit event not recorded")
)

// Error says which operation failed on what. Fields that do not apply are
// zero; Segment is -1 where no segment is meant.
type Error struct {
	Op      string        // push, pull, open, read, …
	Ref     string        // The reference as the caller gave it.
	Host    string        // Where the bytes came from.
	File    string        // The file of the model.
	Segment int64         // Segment of the layer; -1: none.
	Digest  digest.Digest // The manifest or layer.
	Err     error
}

// Error says all of it in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Ref != "" {
		b.WriteByte(' ')
		b.WriteString(e.Ref)
	}
	if e.File != "" {
		fmt.Fprintf(&b, ": file %q", e.File)
	}
	if e.Segment >= 0 {
		fmt.Fprintf(&b, ": segment %d", e.Segment)
	}
	if e.Digest != "" {
		fmt.Fprintf(&b, " of %s", e.Digest)
	}
	if e.Host != "" {
		fmt.Fprintf(&b, " from %s", e.Host)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same call may succeed later.
func (e *Error) Temporary() bool {
	var t interface{ Temporary() bool }
	return errors.As(e.Err, &t) && t.Temporary()
}

// join is errors.Join that leaves a single error as it is: what one says about
// file and segment must not be hidden by the absence of another.
func join(errs ...error) error {
	var only error
	for _, err := range errs {
		switch {
		case err == nil:
		case only != nil:
			return errors.Join(errs...)
		default:
			only = err
		}
	}
	return only
}
