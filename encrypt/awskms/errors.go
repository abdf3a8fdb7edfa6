// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskms

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/modelsec/modelsec-go/encrypt"
)

// codes are the error codes that have a meaning of their own, here and at the
// token service. Throttling has many and the SDK knows them.
var codes = map[string]error{
	"AccessDenied":                encrypt.ErrDenied,
	"AccessDeniedException":       encrypt.ErrDenied,
	"ExpiredToken":                encrypt.ErrDenied,
	"ExpiredTokenException":       encrypt.ErrDenied,
	"IncompleteSignature":         encrypt.ErrDenied,
	"InvalidClientTokenId":        encrypt.ErrDenied,
	"InvalidIdentityToken":        encrypt.ErrDenied,
	"InvalidSignatureException":   encrypt.ErrDenied,
	"MissingAuthenticationToken":  encrypt.ErrDenied,
	"NotAuthorized":               encrypt.ErrDenied,
	"OptInRequired":               encrypt.ErrDenied,
	"SignatureDoesNotMatch":       encrypt.ErrDenied,
	"UnrecognizedClientException": encrypt.ErrDenied,

	"DisabledException":        encrypt.ErrDisabled,
	"KMSInvalidStateException": encrypt.ErrDisabled,
	"NotFoundException":        encrypt.ErrDisabled,
	"XksKeyNotFoundException":  encrypt.ErrDisabled,

	"IncorrectKeyException":      encrypt.ErrDecrypt,
	"InvalidCiphertextException": encrypt.ErrDecrypt,

	"DependencyTimeoutException":      encrypt.ErrUnavailable,
	"KeyUnavailableException":         encrypt.ErrUnavailable,
	"KMSInternalException":            encrypt.ErrUnavailable,
	"RequestTimeout":                  encrypt.ErrUnavailable,
	"ServiceUnavailable":              encrypt.ErrUnavailable,
	"XksProxyUriUnreachableException": encrypt.ErrUnavailable,
}

// failure says what a call came to: the code of the service and the number by
// which CloudTrail knows the request. The text of an answer is left out, for it
// may quote what was sent.
func (k *Key) failure(action string, err error) error {
	what := action + " of " + k.arn.String()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("awskms: %s: %w", what, context.Canceled)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("awskms: %s: %w: %w", what, encrypt.ErrUnavailable, context.DeadlineExceeded)
	}
	answer, answered := errors.AsType[*awshttp.ResponseError](err)
	if !answered {
		// What broke before an answer came quotes nobody.
		if _, sent := errors.AsType[*smithyhttp.RequestSendError](err); sent {
			return fmt.Errorf("awskms: %s: %w: %w", what, encrypt.ErrUnavailable, err)
		}
		return fmt.Errorf("awskms: %s: %w", what, err)
	}
	status, code := answer.HTTPStatusCode(), ""
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		code = api.ErrorCode()
	}
	kind := kindOf(status, code, err)
	if kind == encrypt.ErrDecrypt {
		return fmt.Errorf("%s stanza: %w", Type, kind)
	}
	where := "KMS"
	if inner, ok := innermost(err); ok {
		where = inner // credentials come from services too
	}
	return fmt.Errorf("awskms: %s: %w: %s answered with status %d %s (request %s)", what, kind, where, status, word(code), word(answer.ServiceRequestID()))
}

// errAnswer is what an answer means that has no meaning of its own.
var errAnswer = errors.New("not done")

func kindOf(status int, code string, err error) error {
	if kind, ok := codes[code]; ok {
		return kind
	}
	if _, ok := retry.DefaultThrottleErrorCodes[code]; ok || status == http.StatusTooManyRequests {
		return encrypt.ErrThrottled
	}
	_, broken := errors.AsType[net.Error](err)
	switch {
	case status >= http.StatusInternalServerError, broken, errors.Is(err, io.ErrUnexpectedEOF):
		return encrypt.ErrUnavailable
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return encrypt.ErrDenied
	}
	return errAnswer
}

// innermost returns the service of the last operation in the chain of err.
func innermost(err error) (service string, ok bool) {
	for {
		op, found := errors.AsType[*smithy.OperationError](err)
		if !found {
			return service, ok
		}
		service, ok, err = op.Service(), true, op.Unwrap()
	}
}

var wordPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,40}$`)

// word lets codes and request ids into a message, and nothing that could be
// more than that.
func word(s string) string {
	if !wordPattern.MatchString(s) {
		return "without name"
	}
	return s
}
