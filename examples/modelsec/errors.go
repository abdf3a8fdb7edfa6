// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
	"github.com/modelsec/modelsec-go/registry"
)

// Exit statuses. They are part of the command's interface.
const (
	statusDone        = 0
	statusFailed      = 1
	statusUsage       = 2
	statusRefused     = 3
	statusNoKey       = 4
	statusRegistry    = 5
	statusInterrupted = 130
)

// failure is an error whose status and next step are known where it is made.
type failure struct {
	err    error
	status int
	hint   string
	told   bool // the result that was printed says it already
}

func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

// hinted adds the next step.
func (f *failure) hinted(format string, args ...any) *failure {
	f.hint = fmt.Sprintf(format, args...)
	return f
}

// usage marks what the caller typed, or a file that he wrote, as the cause.
func usage(err error) *failure { return &failure{err: err, status: statusUsage} }

func usagef(format string, args ...any) *failure { return usage(fmt.Errorf(format, args...)) }

// status returns the exit status of an error. The order matters where an error
// is several things: nobody learns that a policy refused from a status that
// says network.
func (t *tool) status(ctx context.Context, err error) int {
	var known *failure
	var refused *provenance.PolicyError
	var mismatch *oms.MismatchError
	var network net.Error
	switch {
	case errors.As(err, &known):
		return known.status
	case !t.started:
		return statusUsage
	case errors.As(err, &refused), errors.As(err, &mismatch):
		return statusRefused
	case ctx.Err() != nil:
		return statusInterrupted
	case isAny(err, encrypt.ErrUnavailable, encrypt.ErrThrottled):
		return statusRegistry
	case isAny(err, modelsec.ErrNoKey, encrypt.ErrNoKey, encrypt.ErrDenied, encrypt.ErrDisabled):
		return statusNoKey
	case isAny(err, modelsec.ErrDigest, modelsec.ErrFormat, encrypt.ErrDecrypt, encrypt.ErrKeyMismatch,
		provenance.ErrFormat, provenance.ErrSignature), invalidContent(err):
		return statusRefused
	case isAny(err, modelsec.ErrConfig, modelsec.ErrUnpinned, modelsec.ErrGrantSigned, provenance.ErrPolicy):
		return statusUsage
	case registryError(err) != nil, isAny(err, modelsec.ErrNotRevoked, registry.ErrNotFound), errors.As(err, &network):
		return statusRegistry
	}
	return statusFailed
}

// invalidContent reports whether a registry served something else than what
// was asked for. Where it only answered nonsense to a write, nothing was
// verified that could fail.
func invalidContent(err error) bool {
	e := registryError(err)
	return e != nil && errors.Is(e, registry.ErrInvalid) && slices.Contains([]string{"resolve", "fetch"}, e.Op)
}

func registryError(err error) *registry.Error {
	var e *registry.Error
	errors.As(err, &e)
	return e
}

func isAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// errorResult is the JSON form of an error.
type errorResult struct {
	Error  string             `json:"error"`
	Status int                `json:"status"`
	Hint   string             `json:"hint,omitempty"`
	Report *provenance.Report `json:"report,omitempty"`
}

// fail prints an error: what, where and why in one line, the next step in
// another, and the report where a policy refused.
func (t *tool) fail(ctx context.Context, args []string, err error) int {
	var known *failure
	if errors.As(err, &known) && known.told {
		return known.status
	}
	out := errorResult{Error: oneLine(err.Error()), Status: t.status(ctx, err)}
	out.Hint = oneLine(t.hint(out.Status, err))
	var refused *provenance.PolicyError
	if errors.As(err, &refused) {
		out.Report = refused.Report
	}
	if out.Status == statusInterrupted {
		out.Error = "interrupted: " + out.Error
	}
	// A flag that did not parse may stand before --json.
	if t.json || !t.started && slices.Contains(args, "--json") {
		t.encode(out)
		return out.Status
	}
	fmt.Fprintf(t.stderr, "modelsec: %s\n", out.Error)
	if out.Hint != "" {
		fmt.Fprintf(t.stderr, "hint: %s\n", out.Hint)
	}
	if out.Report != nil {
		fmt.Fprint(t.stderr, out.Report)
	}
	return out.Status
}
