// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// plainError takes the layers off err that quote an address with its query,
// and puts the end of ctx, which brought it about, in its place.
func plainError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		switch cause := context.Cause(ctx); cause {
		case ErrStalled, ctx.Err():
			return cause
		default:
			return fmt.Errorf("%w: %w", ctx.Err(), cause)
		}
	}
	if errors.Is(err, auth.ErrBasicCredentialNotFound) {
		return fmt.Errorf("%w: no credential for this host", ErrUnauthorized)
	}
	var reply *errcode.ErrorResponse
	if errors.As(err, &reply) {
		return &tokenError{reply.StatusCode}
	}
	for strings.Contains(err.Error(), "://") {
		inner := errors.Unwrap(err)
		if inner == nil {
			return errors.New("request refused: " + withoutAddresses(err.Error()))
		}
		err = inner
	}
	return err
}

// withoutAddresses keeps host and path of the addresses in a message.
func withoutAddresses(s string) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(s) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if at := strings.Index(word, "://"); at >= 0 {
			word, _, _ = strings.Cut(word, "?")
		}
		b.WriteString(word)
	}
	return b.String()
}

// statusOf is the status with which a token service refused.
func statusOf(err error) int {
	var t *tokenError
	if errors.As(err, &t) {
		return t.status
	}
	return 0
}

// refusalBody reads what a refusal says, and closes it.
func refusalBody(resp *http.Response) []byte {
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	return b
}

// refusal turns a reply of an unwanted status into an error, and closes it.
func refusal(resp *http.Response) error {
	body := refusalBody(resp)
	var sentinel error
	switch resp.StatusCode {
	case http.StatusNotFound:
		sentinel = ErrNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		sentinel = ErrUnauthorized
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		sentinel = ErrUnsupported
	case http.StatusRequestEntityTooLarge:
		sentinel = ErrLimit
	}
	message := errors.New("unexpected reply")
	var reply struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &reply) == nil && len(reply.Errors) > 0 {
		first := reply.Errors[0]
		switch {
		case first.Code == "UNSUPPORTED":
			sentinel = ErrUnsupported
		case first.Code == "DIGEST_INVALID" && resp.StatusCode == http.StatusBadRequest:
			sentinel = errMisread
		}
		message = fmt.Errorf("registry says %q", clip(first.Code+": "+first.Message))
	}
	if sentinel == nil {
		return message
	}
	return fmt.Errorf("%w: %w", sentinel, message)
}

// errMisread: the registry read something else than was sent, or says so.
var errMisread = errors.New("digest refused")

// clip bounds a string of the other side; %q then takes care of control
// characters.
func clip(s string) string {
	if len(s) > maxErrorMessage {
		return s[:maxErrorMessage]
	}
	return s
}
