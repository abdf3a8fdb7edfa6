// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekmstest

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// Service returns the states that the suite brings the vault and some of its
// keys into. It takes Intercept for itself.
func (s *Server) Service(names ...string) encrypttest.Service {
	type intercept = func(*http.Request, []byte) *http.Response
	var now atomic.Pointer[intercept]
	s.Intercept = func(r *http.Request, body []byte) *http.Response {
		if f := now.Load(); f != nil {
			return (*f)(r, body)
		}
		return nil
	}
	enter := func(f intercept) func(*testing.T) { return func(*testing.T) { now.Store(&f) } }
	answer := func(status int, code, inner string) func(*testing.T) {
		return enter(func(r *http.Request, _ []byte) *http.Response {
			return Answer(r, status, code, inner, "in the words of the service")
		})
	}
	enable := func(enabled bool) {
		for _, name := range names {
			s.SetEnabled(name, enabled)
		}
	}
	return encrypttest.Service{
		Disable:  func(*testing.T) { enable(false) },
		Deny:     answer(http.StatusForbidden, "Forbidden", "ForbiddenByRbac"),
		Throttle: answer(http.StatusTooManyRequests, "Throttled", ""),
		Fail:     answer(http.StatusServiceUnavailable, "ServiceUnavailable", ""),
		Quote: enter(func(r *http.Request, body []byte) *http.Response {
			quote := r.Header.Get("Authorization") + string(body)
			out := Answer(r, http.StatusBadRequest, quote, quote, quote)
			out.Header.Set("X-Ms-Request-Id", quote)
			out.Header.Set("X-Ms-Error-Code", quote)
			return out
		}),
		Stall: enter(func(r *http.Request, _ []byte) *http.Response {
			<-r.Context().Done() // the client's end of the call
			return nil
		}),
		Heal: func(*testing.T) {
			enable(true)
			now.Store(nil)
		},
	}
}
