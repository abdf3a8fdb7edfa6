// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func body(r *http.Response, text string) *http.Response {
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return r
}

// endless is an answer without end.
type endless struct{ n int }

func (e *endless) Read(b []byte) (int, error) {
	clear(b)
	e.n += len(b)
	return len(b), nil
}

func (e *endless) Close() error { return nil }

// listenTLS serves h under a certificate that no system trusts.
func listenTLS(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of the client that refuses
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}
