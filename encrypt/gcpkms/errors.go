// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gcpkms

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/modelsec/modelsec-go/encrypt"
)

// failure says what a call came to. The text of an answer is left out, for it
// may quote what was sent. invalid, where it is not nil, is what the service's
// InvalidArgument means.
func (k *Key) failure(permission string, err, invalid error) error {
	what := permission + " of " + k.name
	code := status.Code(err)
	switch {
	case code == codes.Canceled || errors.Is(err, context.Canceled):
		return fmt.Errorf("gcpkms: %s: %w", what, context.Canceled)
	case code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("gcpkms: %s: %w: %w", what, encrypt.ErrUnavailable, context.DeadlineExceeded)
	case code == codes.InvalidArgument && invalid != nil:
		return invalid
	case noToken.MatchString(status.Convert(err).Message()):
		kind := encrypt.ErrUnavailable
		if refusedToken.MatchString(status.Convert(err).Message()) {
			kind = encrypt.ErrDenied
		}
		return fmt.Errorf("gcpkms: %s: %w: no token", what, kind)
	}
	return fmt.Errorf("gcpkms: %s: %w: the service answered %v", what, kindOf(code), code)
}

// gRPC has one code for a service that refuses a token and for none to show it,
// and makes the reason text.
var (
	noToken      = regexp.MustCompile(`^transport: per-RPC creds failed`)
	refusedToken = regexp.MustCompile(`cannot fetch token: 40[013]\b`)
)

// errAnswer is what an answer means that has no meaning of its own.
var errAnswer = errors.New("not done")

func kindOf(code codes.Code) error {
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated:
		return encrypt.ErrDenied
	case codes.FailedPrecondition, codes.NotFound: // disabled, destroyed, no primary version; not there
		return encrypt.ErrDisabled
	case codes.ResourceExhausted:
		return encrypt.ErrThrottled
	case codes.Unavailable, codes.Internal, codes.Unknown, codes.Aborted, codes.DataLoss:
		return encrypt.ErrUnavailable
	}
	return errAnswer
}
