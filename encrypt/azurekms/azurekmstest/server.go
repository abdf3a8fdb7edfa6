// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package azurekmstest is a small Key Vault for tests, on the fake transport of
// the Azure SDK: wrapKey and unwrapKey, with RSA-OAEP-256 and A256KW under keys
// in memory, versions, and the challenge by which the service asks for a token.
// It answers in the same process or over HTTP, and with the errors of the
// service as far as package azurekms meets them.
package azurekmstest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys/fake"
)

const maxRequest = 64 << 10

// Server is one vault. Its fields are set before it serves; its methods are safe
// for concurrent use.
type Server struct {
	// Token is the bearer token that is accepted.
	Token string
	// Intercept, where it is set, is asked about every request that came with
	// the right token, concurrently. If it returns nil the request is served.
	Intercept func(r *http.Request, body []byte) *http.Response

	host      string
	transport *fake.ServerTransport
	mu        sync.Mutex
	keys      map[string]*key
	requests  int
}

// key has one kind of material in all its versions.
type key struct {
	versions map[string]material
	current  string
	disabled bool
}

// material wraps and unwraps with one version of a key.
type material interface {
	wrap(algorithm azkeys.EncryptionAlgorithm, b []byte) ([]byte, error)
	unwrap(algorithm azkeys.EncryptionAlgorithm, b []byte) ([]byte, error)
}

// New returns an empty vault with the given host name.
func New(host, token string) *Server {
	s := &Server{Token: token, host: host, keys: make(map[string]*key)}
	s.transport = fake.NewServerTransport(&fake.Server{
		WrapKey: func(_ context.Context, name, version string, p azkeys.KeyOperationParameters, _ *azkeys.WrapKeyOptions) (r azfake.Responder[azkeys.WrapKeyResponse], e azfake.ErrorResponder) {
			out, err := s.operate(name, version, p, material.wrap)
			if err != nil {
				e.SetError(err)
			} else {
				r.SetResponse(http.StatusOK, azkeys.WrapKeyResponse{KeyOperationResult: out}, nil)
			}
			return r, e
		},
		UnwrapKey: func(_ context.Context, name, version string, p azkeys.KeyOperationParameters, _ *azkeys.UnwrapKeyOptions) (r azfake.Responder[azkeys.UnwrapKeyResponse], e azfake.ErrorResponder) {
			out, err := s.operate(name, version, p, material.unwrap)
			if err != nil {
				e.SetError(err)
			} else {
				r.SetResponse(http.StatusOK, azkeys.UnwrapKeyResponse{KeyOperationResult: out}, nil)
			}
			return r, e
		},
	})
	return s
}

// RotateRSA gives a key a new current version, and makes the key where it is not
// there. Generating takes a while.
func (s *Server) RotateRSA(name string) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) // the size is a constant
	}
	s.rotate(name, rsaKey{private})
}

// RotateAES does the same for an AES key of a Managed HSM.
func (s *Server) RotateAES(name string) {
	var k aesKey
	rand.Read(k[:])
	s.rotate(name, &k)
}

func (s *Server) rotate(name string, m material) {
	var id [16]byte
	rand.Read(id[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[name]
	if k == nil {
		k = &key{versions: make(map[string]material)}
		s.keys[name] = k
	}
	k.current = hex.EncodeToString(id[:])
	k.versions[k.current] = m
}

// Version returns the current version of a key.
func (s *Server) Version(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys[name].current
}

// SetEnabled disables a key or enables it again.
func (s *Server) SetEnabled(name string, enabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name].disabled = !enabled
}

// Requests returns how many requests came in.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *Server) operate(name, version string, p azkeys.KeyOperationParameters, do func(material, azkeys.EncryptionAlgorithm, []byte) ([]byte, error)) (out azkeys.KeyOperationResult, err error) {
	// The fake transport leaves the version in the name.
	if n, v, both := strings.Cut(name, "/"); both {
		name, version = n, v
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[name]
	if k == nil {
		return out, &refusal{http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) " + name + " was not found in this key vault."}
	}
	if version == "" {
		version = k.current
	}
	m := k.versions[version]
	switch {
	case m == nil:
		return out, &refusal{http.StatusNotFound, "KeyNotFound", "", "A key with (name/id) " + name + "/" + version + " was not found in this key vault."}
	case k.disabled:
		return out, &refusal{http.StatusForbidden, "Forbidden", "KeyDisabled", "Operation is not allowed on a disabled key."}
	case p.Algorithm == nil:
		return out, badParameter
	}
	b, err := do(m, *p.Algorithm, p.Value)
	if err != nil {
		return out, badParameter
	}
	id := azkeys.ID("https://" + s.host + "/keys/" + name + "/" + version)
	return azkeys.KeyOperationResult{KID: &id, Result: b}, nil
}

// refusal is an error of the service.
type refusal struct {
	status               int
	code, inner, message string
}

var badParameter = &refusal{http.StatusBadRequest, "BadParameter", "", "The parameter is incorrect."}

func (e *refusal) Error() string { return e.code }

// Answer returns an error of the service as a response. inner may be empty.
func Answer(r *http.Request, status int, code, inner, message string) *http.Response {
	detail := map[string]any{"code": code, "message": message}
	if inner != "" {
		detail["innererror"] = map[string]string{"code": inner}
	}
	b, err := json.Marshal(map[string]any{"error": detail})
	if err != nil {
		panic(err) // strings are always marshalled
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}, "X-Ms-Request-Id": {"00000000-1111-2222-3333-444444444444"}},
		Body:   io.NopCloser(bytes.NewReader(b)), ContentLength: int64(len(b)),
	}
}

// Do implements the policy.Transporter of the SDK.
func (s *Server) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.requests++
	s.mu.Unlock()
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxRequest)); err != nil {
			return nil, err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if token, asked := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); asked {
		if token != s.Token {
			return Answer(r, http.StatusUnauthorized, "Unauthorized", "", "Error validating token"), nil
		}
		if s.Intercept != nil {
			if out := s.Intercept(r, body); out != nil {
				return out, nil
			}
		}
		if err := r.Context().Err(); err != nil {
			return nil, err
		}
	}
	out, err := s.transport.Do(r)
	if e, ok := errors.AsType[*refusal](err); ok {
		return Answer(r, e.status, e.code, e.inner, e.message), nil
	}
	return out, err
}

// ServeHTTP does the same over HTTP. The fake transport of the SDK finds the
// operation in the context that a client of the same process has.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := "Client.WrapKey"
	if strings.HasSuffix(r.URL.Path, "/unwrapkey") {
		operation = "Client.UnwrapKey"
	}
	r = r.Clone(context.WithValue(r.Context(), runtime.CtxAPINameKey{}, operation))
	r.URL.Scheme, r.URL.Host = "https", r.Host
	resp, err := s.Do(r)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	defer resp.Body.Close()
	for name, values := range resp.Header {
		w.Header()[name] = values
	}
	w.WriteHeader(resp.StatusCode)
	io.Copy(w, resp.Body)
}
