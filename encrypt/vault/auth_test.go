// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/vault"
)

// TestTokenIsReplacedOnce: a token that is refused is replaced by a login, once
// in a call, and a refusal after a login is final.
func TestTokenIsReplacedOnce(t *testing.T) {
	for _, name := range []string{"approle", "kubernetes"} {
		s := newServer(t)
		k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths[name]})
		if err := roundTrip(t, k); err != nil {
			t.Fatal(err)
		}
		if want := 3; s.count() != want { // login, encrypt, decrypt
			t.Errorf("%s: %d requests for a round trip, want %d: %q", name, s.count(), want, s.requests)
		}
		s.mu.Lock()
		clear(s.tokens) // all of them expire
		s.mu.Unlock()
		if err := roundTrip(t, k); err != nil {
			t.Errorf("%s: after the token expired: %v", name, err)
		}
		if want := 3 + 4; s.count() != want { // refused, login, encrypt, decrypt
			t.Errorf("%s: %d requests, want %d: %q", name, s.count(), want, s.requests)
		}
		s.uses = 0 // whoever logs in is denied all the same
		if err := roundTrip(t, open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths[name]})); !errors.Is(err, encrypt.ErrDenied) {
			t.Errorf("%s: a fresh token is refused: error %v, want ErrDenied", name, err)
		}
		if want := 7 + 2; s.count() != want { // login, refused
			t.Errorf("%s: %d requests, want %d: %q", name, s.count(), want, s.requests)
		}
		s.mu.Lock()
		clear(s.tokens)
		clear(s.logins)
		s.mu.Unlock()
		before := s.count()
		if err := roundTrip(t, k); !errors.Is(err, encrypt.ErrDenied) {
			t.Errorf("%s: no login any more: error %v, want ErrDenied", name, err)
		}
		if n := s.count() - before; n != 2 { // refused, login refused
			t.Errorf("%s: %d requests, want 2", name, n)
		}
	}
}

// TestTokenFileIsReadAgain: an agent replaces the file; a token that was refused
// and is still the one in the file is not tried twice.
func TestTokenFileIsReadAgain(t *testing.T) {
	s := newServer(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("hvs.old")
	k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: vault.Auth{Method: vault.Token, Secret: vault.SecretFile(file)}})
	if err := roundTrip(t, k); !errors.Is(err, encrypt.ErrDenied) || s.count() != 1 {
		t.Errorf("error %v after %d requests, want ErrDenied after 1", err, s.count())
	}
	if err := roundTrip(t, k); !errors.Is(err, encrypt.ErrDenied) || s.count() != 2 {
		t.Errorf("error %v after %d requests, want ErrDenied after 2", err, s.count())
	}
	write("hvs.root-of-the-test")
	if err := roundTrip(t, k); err != nil {
		t.Errorf("after the file changed: %v", err)
	}
	write("two\nlines")
	k = open(t, vault.Config{Address: s.URL, Key: "ours", Auth: vault.Auth{Method: vault.Token, Secret: vault.SecretFile(file)}})
	if err := roundTrip(t, k); err == nil || strings.Contains(err.Error(), "lines") {
		t.Errorf("a token of two lines: error %v", err)
	}
}

// TestTokenIsRenewed before it expires, and replaced where it cannot be.
func TestTokenIsRenewed(t *testing.T) {
	s := newServer(t)
	s.lease = 1 // second: spent after two thirds of it
	k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["approle"]})
	if err := roundTrip(t, k); err != nil {
		t.Fatal(err)
	}
	for s.seen("POST auth/token/renew-self") == 0 {
		if err := roundTrip(t, k); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.seen("POST auth/approle/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	s.mu.Lock()
	clear(s.tokens)
	s.mu.Unlock()
	if err := roundTrip(t, k); err != nil {
		t.Errorf("after the token could not be renewed: %v", err)
	}
}

// TestTokenThatIsNotRenewedIsReplaced, whatever the server says: it answers 400
// for what is not to be renewed, and 500 where a role has changed.
func TestTokenThatIsNotRenewedIsReplaced(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusForbidden, http.StatusInternalServerError} {
		s := newServer(t)
		s.lease = 1
		var renewals atomic.Int32
		front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "renew-self") {
				renewals.Add(1)
				fail(w, status, "lease is not renewable")
				return
			}
			s.ServeHTTP(w, r)
		}))
		t.Cleanup(front.Close)
		k := open(t, vault.Config{Address: front.URL, Key: "ours", Auth: auths["approle"]})
		for renewals.Load() == 0 {
			if err := roundTrip(t, k); err != nil {
				t.Fatalf("status %d: %v", status, err)
			}
		}
		if n := s.seen("POST auth/approle/login"); n < 2 {
			t.Errorf("status %d: %d logins, want another", status, n)
		}
	}
}

func (s *server) seen(request string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.requests {
		if r == request {
			n++
		}
	}
	return n
}

// TestManyCallersLogInOnce: they wait for one login instead of each making one.
func TestManyCallersLogInOnce(t *testing.T) {
	s := newServer(t)
	k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["approle"]})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := roundTrip(t, k); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := s.seen("POST auth/approle/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
}

// TestNoOtherHostSeesAToken: redirects are not followed, and a token does not
// cross a network in the clear.
func TestNoOtherHostSeesAToken(t *testing.T) {
	s, other := newServer(t), newServer(t)
	s.enter(http.RedirectHandler(other.URL+"/v1/transit/encrypt/ours", http.StatusTemporaryRedirect).ServeHTTP)(t)
	if err := roundTrip(t, open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["token"]})); err == nil || other.count() != 0 {
		t.Errorf("error %v, %d requests at the other host", err, other.count())
	}
	for _, address := range []string{"", "vault.example.com", "http://vault.example.com:8200", "http://10.0.0.1", "ftp://127.0.0.1", "https://user@vault.example.com", "https://vault.example.com/v1?x", "http://127.0.0.1.example.com"} {
		if _, err := vault.New(vault.Config{Address: address, Key: "k", Auth: auths["token"]}); err == nil {
			t.Errorf("address %q was taken", address)
		}
	}
}
