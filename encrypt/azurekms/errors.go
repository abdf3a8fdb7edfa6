// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/modelsec/modelsec-go/encrypt"
)

// failure says what a call came to: the codes of the service and the number by
// which its log knows the request. The text of an answer is left out, for it may
// quote what was sent.
func (k *Key) failure(op string, err error) error {
	what := op + " of " + k.name.String()
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("azurekms: %s: %w", what, context.Canceled)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("azurekms: %s: %w: %w", what, encrypt.ErrUnavailable, context.DeadlineExceeded)
	}
	if refused, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		if refused.RawResponse == nil {
			return fmt.Errorf("azurekms: %s: %w: no token", what, encrypt.ErrUnavailable)
		}
		status := refused.RawResponse.StatusCode
		kind := kindOf(status, "")
		if kind == errAnswer {
			kind = encrypt.ErrDenied // 400: the client, its secret or its assertion is not known
		}
		return fmt.Errorf("azurekms: %s: %w: the authority gives no token, with status %d", what, kind, status)
	}
	answer, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		if _, broken := errors.AsType[net.Error](err); broken || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			return fmt.Errorf("azurekms: %s: %w: %w", what, encrypt.ErrUnavailable, err)
		}
		return fmt.Errorf("azurekms: %s: %w", what, err)
	}
	code, inner := codes(answer.RawResponse)
	if answer.StatusCode == http.StatusBadRequest && op == "unwrapKey" && code == "BadParameter" {
		return fmt.Errorf("%s stanza: %w", k.Type(), encrypt.ErrDecrypt)
	}
	kind := kindOf(answer.StatusCode, inner)
	return fmt.Errorf("azurekms: %s: %w: the service answered with status %d %s %s (request %s)", what, kind,
		answer.StatusCode, word(code), word(inner), word(answer.RawResponse.Header.Get("X-Ms-Request-Id")))
}

// errAnswer is what an answer means that has no meaning of its own.
var errAnswer = errors.New("not done")

func kindOf(status int, inner string) error {
	switch {
	case inner == "KeyDisabled" || inner == "KeyExpired" || inner == "KeyNotYetValid" || status == http.StatusNotFound:
		return encrypt.ErrDisabled
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return encrypt.ErrDenied
	case status == http.StatusTooManyRequests:
		return encrypt.ErrThrottled
	case status == http.StatusRequestTimeout || status >= http.StatusInternalServerError:
		return encrypt.ErrUnavailable
	}
	return errAnswer
}

// maxError bounds what is read of an error.
const maxError = 16 << 10

// codes returns the two codes of an error of the service.
func codes(r *http.Response) (code, inner string) {
	var body struct {
		Error struct {
			Code       string `json:"code"`
			InnerError struct {
				Code string `json:"code"`
			} `json:"innererror"`
		} `json:"error"`
	}
	// An answer that is no JSON, say of a proxy, has no codes.
	if b, err := io.ReadAll(io.LimitReader(r.Body, maxError)); err != nil || json.Unmarshal(b, &body) != nil {
		return "", ""
	}
	return body.Error.Code, body.Error.InnerError.Code
}

var wordPattern = regexp.MustCompile(`^[A-Za-z0-9-]{1,40}$`)

// word lets codes and request ids into a message, and nothing that could be
// more than that.
func word(s string) string {
	if !wordPattern.MatchString(s) {
		return "-"
	}
	return s
}
