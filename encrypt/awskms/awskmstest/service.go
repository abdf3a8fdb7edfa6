// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskmstest

import (
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// Service returns the states that the suite brings the server and one of its
// keys into. It takes Intercept for itself.
func (s *Server) Service(arn string) encrypttest.Service {
	type intercept = func(http.ResponseWriter, *http.Request, []byte) bool
	var now atomic.Pointer[intercept]
	var stalled atomic.Pointer[chan struct{}]
	s.Intercept = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		f := now.Load()
		return f != nil && (*f)(w, r, body)
	}
	enter := func(f intercept) func(*testing.T) { return func(*testing.T) { now.Store(&f) } }
	answer := func(status int, code string) func(*testing.T) {
		return enter(func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
			WriteError(w, status, code, "User: arn:aws:iam::111122223333:user/somebody")
			return true
		})
	}
	return encrypttest.Service{
		Disable:  func(*testing.T) { s.SetEnabled(arn, false) },
		Deny:     answer(http.StatusBadRequest, "AccessDeniedException"),
		Throttle: answer(http.StatusBadRequest, "ThrottlingException"),
		Fail:     answer(http.StatusInternalServerError, "KMSInternalException"),
		Quote: enter(func(w http.ResponseWriter, r *http.Request, body []byte) bool {
			WriteError(w, http.StatusBadRequest, "ValidationException", s.SecretAccessKey+r.Header.Get("Authorization")+string(body))
			return true
		}),
		Stall: func(t *testing.T) {
			ended := make(chan struct{})
			stalled.Store(&ended)
			enter(func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
				select {
				case <-ended:
				case <-r.Context().Done():
				}
				return true
			})(t)
		},
		Heal: func(*testing.T) {
			s.SetEnabled(arn, true)
			now.Store(nil)
			if ended := stalled.Swap(nil); ended != nil {
				close(*ended)
			}
		},
	}
}
