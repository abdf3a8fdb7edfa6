// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// server answers as Vault does, as far as this package asks, and misbehaves on
// demand. That the real engine answers the same is for internal/interop/keys.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	keys     map[string][]byte // by NAMESPACE|MOUNT/KEY
	tokens   map[string]int    // how many requests each may still make
	logins   map[string]string // secret by PATH|ROLE
	lease    int               // seconds
	uses     int               // of a token from a login
	requests []string          // METHOD PATH of all
	fault    http.HandlerFunc  // instead of everything else
	healed   chan struct{}
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{
		keys:   map[string][]byte{"|transit/ours": random(32), "|transit/theirs": random(32)},
		tokens: map[string]int{"hvs.root-of-the-test": 1 << 30},
		logins: map[string]string{"auth/approle/login|role-1": "secret-id-of-the-test", "auth/k8s/eu/login|puller": "jwt-of-the-test"},
		uses:   1 << 30,
		healed: make(chan struct{}),
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.heal(t)
		s.Close()
	})
	return s
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// enter returns a state of the suite.
func (s *server) enter(fault http.HandlerFunc) func(*testing.T) {
	return func(*testing.T) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fault = fault
	}
}

func (s *server) heal(*testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = nil
	close(s.healed)
	s.healed = make(chan struct{})
}

func (s *server) stall(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	healed := s.healed
	s.mu.Unlock()
	select {
	case <-healed:
	case <-r.Context().Done():
	}
}

func fail(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}})
}

func failing(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fail(w, status, text) }
}

// quoting refuses with everything that it was sent.
func quoting(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fail(w, http.StatusBadRequest, fmt.Sprintf("bad request: %v %s", r.Header, body))
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	s.requests = append(s.requests, r.Method+" "+path)
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	var in map[string]string
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || r.Header.Get("X-Vault-Request") != "true" {
		fail(w, http.StatusBadRequest, "no request")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if strings.HasPrefix(path, "auth/") && strings.HasSuffix(path, "/login") {
		secret, ok := s.logins[path+"|"+in["role_id"]+in["role"]]
		if !ok || secret != in["secret_id"]+in["jwt"] {
			fail(w, http.StatusBadRequest, "invalid role or secret ID")
			return
		}
		s.grant(w, "hvs."+rand.Text(), s.uses)
		return
	}
	token := r.Header.Get("X-Vault-Token")
	if s.tokens[token] == 0 {
		fail(w, http.StatusForbidden, "permission denied")
		return
	}
	s.tokens[token]--
	if path == "auth/token/renew-self" {
		s.grant(w, token, s.tokens[token])
		return
	}
	s.transit(w, r.Header.Get("X-Vault-Namespace"), path, in)
}

func (s *server) grant(w http.ResponseWriter, token string, requests int) {
	s.tokens[token] = requests
	json.NewEncoder(w).Encode(map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": s.lease, "renewable": s.lease > 0}})
}

func (s *server) transit(w http.ResponseWriter, namespace, path string, in map[string]string) {
	op := "encrypt"
	mount, key, ok := strings.Cut(path, "/encrypt/")
	if !ok {
		op = "decrypt"
		mount, key, _ = strings.Cut(path, "/decrypt/")
	}
	kek := s.keys[namespace+"|"+mount+"/"+key]
	if kek == nil {
		fail(w, http.StatusBadRequest, "encryption key not found")
		return
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	aad, err := base64.StdEncoding.DecodeString(in["associated_data"])
	if err != nil || len(aad) == 0 {
		fail(w, http.StatusBadRequest, "failed to decode associated data")
		return
	}
	data := make(map[string]string)
	if op == "encrypt" {
		plain, err := base64.StdEncoding.DecodeString(in["plaintext"])
		if err != nil {
			fail(w, http.StatusBadRequest, "failed to base64-decode plaintext")
			return
		}
		data["ciphertext"] = "vault:v1:" + base64.StdEncoding.EncodeToString(aead.Seal(nil, nil, plain, aad))
	} else {
		sealed, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(in["ciphertext"], "vault:v1:"))
		plain, openErr := aead.Open(nil, nil, sealed, aad)
		if err != nil || openErr != nil {
			fail(w, http.StatusBadRequest, "cipher: message authentication failed")
			return
		}
		data["plaintext"] = base64.StdEncoding.EncodeToString(plain)
	}
	json.NewEncoder(w).Encode(map[string]any{"data": data})
}
