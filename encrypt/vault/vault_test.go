// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/vault"
)

// auths are the ways to obtain a token.
var auths = map[string]vault.Auth{
	"token":      {Method: vault.Token, Secret: vault.Secret("hvs.root-of-the-test")},
	"approle":    {Method: vault.AppRole, Role: "role-1", Secret: vault.Secret("secret-id-of-the-test")},
	"kubernetes": {Method: vault.Kubernetes, Mount: "k8s/eu", Role: "puller", Secret: vault.Secret("jwt-of-the-test")},
}

func open(t *testing.T, c vault.Config) *vault.Key {
	t.Helper()
	k, err := vault.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestContract(t *testing.T) {
	for name, auth := range auths {
		t.Run(name, func(t *testing.T) {
			encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
				s := newServer(t)
				ours := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auth})
				secret, err := auth.Secret()
				if err != nil {
					t.Fatal(err)
				}
				return encrypttest.Pair{
					Recipient: ours, Identity: ours, Stranger: open(t, vault.Config{Address: s.URL, Key: "theirs", Auth: auth}),
					Secrets:  [][]byte{[]byte(secret)},
					Requests: s.count,
					Binds:    true,
					Service: encrypttest.Service{
						Disable:  s.enter(failing(http.StatusBadRequest, "encryption key not found")),
						Deny:     s.enter(failing(http.StatusForbidden, "permission denied")),
						Throttle: s.enter(failing(http.StatusTooManyRequests, "request path \"transit\": rate limit quota exceeded")),
						Fail:     s.enter(failing(http.StatusServiceUnavailable, "Vault is sealed")),
						Quote:    s.enter(quoting),
						Stall:    s.enter(s.stall),
						Heal:     s.heal,
					},
				}
			})
		})
	}
}

// roundTrip wraps and unwraps with k.
func roundTrip(t *testing.T, k *vault.Key) error {
	t.Helper()
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, k)
	if err != nil {
		return err
	}
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, k)
	if err != nil {
		return err
	}
	got.Close()
	return nil
}

// TestStatuses says what each answer of Vault means (docs/KEYS.md §2).
func TestStatuses(t *testing.T) {
	s := newServer(t)
	k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["token"]})
	_, b := encrypttest.NewBinding(t)
	stanza, err := k.Wrap(t.Context(), make([]byte, 128), b)
	if err != nil {
		t.Fatal(err)
	}
	all := []error{encrypt.ErrDecrypt, encrypt.ErrDenied, encrypt.ErrDisabled, encrypt.ErrThrottled, encrypt.ErrUnavailable}
	for _, test := range []struct {
		status int
		text   string
		want   error
	}{
		{400, "cipher: message authentication failed", encrypt.ErrDecrypt},
		{400, "invalid ciphertext: version is too new", encrypt.ErrDecrypt},
		{400, "ciphertext or signature version is disallowed by policy (too old)", encrypt.ErrDecrypt},
		{400, "encryption key not found", encrypt.ErrDisabled},
		{400, "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048", nil},
		{500, "requested operation on Soft-deleted key", encrypt.ErrDisabled},
		{401, "", encrypt.ErrDenied},
		{403, "permission denied", encrypt.ErrDenied},
		{404, "no handler for route \"transit/decrypt/ours\"", encrypt.ErrDisabled},
		{412, "required index state not present", encrypt.ErrUnavailable},
		{429, "rate limit quota exceeded", encrypt.ErrThrottled},
		{472, "", encrypt.ErrUnavailable},
		{473, "", encrypt.ErrUnavailable},
		{500, "internal error", encrypt.ErrUnavailable},
		{502, "<html>a proxy", encrypt.ErrUnavailable},
		{503, "Vault is sealed", encrypt.ErrUnavailable},
		{405, "", nil}, {418, "", nil}, {204, "", nil},
	} {
		s.enter(failing(test.status, test.text))(t)
		_, err := k.Unwrap(t.Context(), stanza, b)
		if err == nil {
			t.Errorf("%d %s: no error", test.status, test.text)
		}
		for _, is := range all {
			if errors.Is(err, is) != (is == test.want) {
				t.Errorf("%d %s: error %v, want %v", test.status, test.text, err, test.want)
			}
		}
	}
}

// TestServerIsOutOfReach: no connection, one that breaks, a foreign certificate.
func TestServerIsOutOfReach(t *testing.T) {
	s := newServer(t)
	k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["token"]})
	_, b := encrypttest.NewBinding(t)
	s.enter(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte(`{"data":{"ciphertext":"vault:`))
	})(t)
	if _, err := k.Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("cut answer: error %v, want ErrUnavailable", err)
	}
	s.Close()
	if _, err := k.Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("nobody listens: error %v, want ErrUnavailable", err)
	}
	foreign := httptest.NewTLSServer(s)
	defer foreign.Close()
	before := s.count()
	k = open(t, vault.Config{Address: foreign.URL, Key: "ours", Auth: auths["token"]})
	if _, err := k.Wrap(t.Context(), make([]byte, 128), b); err == nil || s.count() != before {
		t.Errorf("foreign certificate: error %v, %d requests", err, s.count()-before)
	}
}

// TestAnswersThatAreNone: whatever a server says with status 200, a stanza is
// what the engine makes of 128 bytes.
func TestAnswersThatAreNone(t *testing.T) {
	s := newServer(t)
	k := open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["token"]})
	_, b := encrypttest.NewBinding(t)
	sealed := base64.StdEncoding.EncodeToString(make([]byte, 156))
	for _, ciphertext := range []string{"", sealed, "vault:v0:" + sealed, "vault:v1:" + sealed + "\n", "vault:v1:" + sealed[4:], "vault:v1:" + sealed + "AAAA",
		"vault:v01:" + sealed, "bao:v1:" + sealed, "vault:v1:" + sealed[:80] + "\n" + sealed[80:]} {
		s.enter(func(w http.ResponseWriter, _ *http.Request) {
			w.Write([]byte(`{"data":{"ciphertext":"` + strings.ReplaceAll(ciphertext, "\n", `\n`) + `"}}`))
		})(t)
		if st, err := k.Wrap(t.Context(), make([]byte, 128), b); err == nil {
			t.Errorf("ciphertext %q became a stanza of %d bytes", ciphertext, len(st.Body))
		}
		before := s.count()
		if _, err := k.Unwrap(t.Context(), encrypt.Stanza{Type: vault.Type, KeyID: k.KeyID(b), Body: []byte(ciphertext)}, b); !errors.Is(err, encrypt.ErrDecrypt) || s.count() != before {
			t.Errorf("ciphertext %q: error %v after %d requests, want ErrDecrypt after none", ciphertext, err, s.count()-before)
		}
	}
	for _, answer := range []string{"", "{", `{"data":{"ciphertext":7}}`, `{"data":{"ciphertext":"` + strings.Repeat("A", 100<<10) + `"}}`} {
		s.enter(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(answer)) })(t)
		if _, err := k.Wrap(t.Context(), make([]byte, 128), b); err == nil {
			t.Errorf("answer of %d bytes was taken", len(answer))
		}
	}
}

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

// TestPrivateAuthorityAndNamespace: TLS with an authority of one's own, a client
// certificate demanded, a mount and a namespace other than the default.
func TestPrivateAuthorityAndNamespace(t *testing.T) {
	plain := newServer(t)
	plain.keys["team/a|kv/transit/model-key"] = random(32)
	s := httptest.NewUnstartedServer(plain)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := vault.Config{
		Address: s.URL, Namespace: "team/a/", Mount: "kv/transit", Key: "model-key", Auth: auths["token"],
		TLS: &tls.Config{RootCAs: roots, Certificates: s.TLS.Certificates},
	}
	if err := roundTrip(t, open(t, c)); err != nil {
		t.Error(err)
	}
	// A key id does not depend on the address, and does on everything else.
	b := encrypt.Binding{ArtifactID: [16]byte{1}}
	ids := []string{open(t, c).KeyID(b)}
	for _, change := range []func(*vault.Config){
		func(c *vault.Config) { c.Namespace = "team" }, func(c *vault.Config) { c.Mount = "transit" },
		func(c *vault.Config) { c.Key = "other" }, func(c *vault.Config) { c.Cluster = "eu" },
	} {
		c := c
		change(&c)
		ids = append(ids, open(t, c).KeyID(b))
	}
	slices.Sort(ids)
	if len(slices.Compact(ids)) != 5 {
		t.Errorf("key ids %q", ids)
	}
	c.Address = "https://another.example.com"
	if !slices.Contains(ids, open(t, c).KeyID(b)) {
		t.Error("the key id depends on the address")
	}
}

func TestNewRefuses(t *testing.T) {
	good := vault.Config{Address: "https://v", Key: "k", Auth: auths["token"]}
	for name, change := range map[string]func(*vault.Config){
		"no key":              func(c *vault.Config) { c.Key = "" },
		"key with slash":      func(c *vault.Config) { c.Key = "a/b" },
		"key with dots":       func(c *vault.Config) { c.Key = ".." },
		"key with query":      func(c *vault.Config) { c.Key = "k?x" },
		"mount with dots":     func(c *vault.Config) { c.Mount = "transit/../sys" },
		"mount with slash":    func(c *vault.Config) { c.Mount = "/transit" },
		"namespace":           func(c *vault.Config) { c.Namespace = "a\nb" },
		"cluster":             func(c *vault.Config) { c.Cluster = "a\x00b" },
		"no method":           func(c *vault.Config) { c.Auth.Method = "" },
		"unknown method":      func(c *vault.Config) { c.Auth.Method = "userpass" },
		"token with a role":   func(c *vault.Config) { c.Auth.Role = "x" },
		"approle without one": func(c *vault.Config) { c.Auth.Method = vault.AppRole },
		"auth mount": func(c *vault.Config) {
			c.Auth = vault.Auth{Method: vault.AppRole, Role: "r", Mount: "../x", Secret: vault.Secret("s")}
		},
		"no secret": func(c *vault.Config) { c.Auth.Secret = nil },
	} {
		c := good
		change(&c)
		if _, err := vault.New(c); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := vault.New(good); err != nil {
		t.Error(err)
	}
}

func TestParseURI(t *testing.T) {
	dir := t.TempDir()
	s := httptest.NewTLSServer(http.NotFoundHandler())
	s.Close()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "secret")
	for file, text := range map[string]string{secret: "from the file", filepath.Join(dir, ".vault-token"): "from the home"} {
		if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"VAULT_ADDR", "BAO_ADDR", "VAULT_TOKEN", "BAO_TOKEN", "VAULT_NAMESPACE", "BAO_NAMESPACE", "VAULT_CACERT", "BAO_CACERT", "VAULT_SECRET_ID"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", dir)
	for _, test := range []struct {
		uri    string
		env    []string
		want   vault.Config
		secret string
	}{
		{"hashivault://v.example.com:8200/transit/llama", nil, vault.Config{Address: "https://v.example.com:8200", Mount: "transit", Key: "llama", Auth: vault.Auth{Method: "token"}}, "from the home"},
		{"hashivault:///llama", []string{"VAULT_ADDR=https://e", "VAULT_TOKEN=t", "VAULT_NAMESPACE=n"}, vault.Config{Address: "https://e", Namespace: "n", Key: "llama", Auth: vault.Auth{Method: "token"}}, "t"},
		{"hashivault://Llama_2", []string{"BAO_ADDR=https://e", "BAO_TOKEN=t"}, vault.Config{Address: "https://e", Key: "Llama_2", Auth: vault.Auth{Method: "token"}}, "t"},
		{"hashivault://v/a/b/k?auth=approle&role=r&auth-mount=x/y&secret-file=" + secret + "&namespace=n&cluster=c", []string{"VAULT_NAMESPACE=m"},
			vault.Config{Address: "https://v", Namespace: "n", Cluster: "c", Mount: "a/b", Key: "k", Auth: vault.Auth{Method: "approle", Role: "r", Mount: "x/y"}}, "from the file"},
		{"hashivault://v/k?auth=approle&role=r", []string{"VAULT_SECRET_ID=s"}, vault.Config{Address: "https://v", Key: "k", Auth: vault.Auth{Method: "approle", Role: "r"}}, "s"},
	} {
		for _, e := range test.env {
			name, value, _ := strings.Cut(e, "=")
			t.Setenv(name, value)
		}
		c, err := vault.ParseURI(test.uri)
		for _, e := range test.env {
			name, _, _ := strings.Cut(e, "=")
			t.Setenv(name, "")
		}
		if err != nil {
			t.Errorf("%s: %v", test.uri, err)
			continue
		}
		got, err := c.Auth.Secret()
		if err != nil || got != test.secret {
			t.Errorf("%s: secret %q, error %v", test.uri, got, err)
		}
		c.Auth.Secret = nil
		if c.Address != test.want.Address || c.Namespace != test.want.Namespace || c.Mount != test.want.Mount || c.Key != test.want.Key || c.Cluster != test.want.Cluster ||
			c.Auth.Method != test.want.Auth.Method || c.Auth.Role != test.want.Auth.Role || c.Auth.Mount != test.want.Auth.Mount {
			t.Errorf("%s:\ngot  %+v\nwant %+v", test.uri, c, test.want)
		}
	}
	if c, err := vault.ParseURI("hashivault://v/k?ca-file=" + ca); err != nil || c.TLS == nil || c.TLS.RootCAs == nil {
		t.Errorf("authorities: %+v, error %v", c.TLS, err)
	}
	if c, err := vault.ParseURI("hashivault://v/k?auth=kubernetes&role=r"); err != nil || c.Auth.Secret == nil {
		t.Errorf("kubernetes: error %v", err)
	}
	for _, uri := range []string{"", "hashivault:", "https://v/k", "hashivault://token@v/k", "hashivault:///k", "hashivault://v/k#x", "hashivault://v/%6b%2f", "hashivault://v/k?token=t", "hashivault://v/k?role=",
		"hashivault://v/k?role=a&role=b", "hashivault://v/k?auth=approle&role=r", "hashivault://v/k?ca-file=/does/not/exist", "hashivault://v/k?ca-file=" + secret, "hashivault://v/k?%zz"} {
		if c, err := vault.ParseURI(uri); err == nil {
			t.Errorf("%s was taken: %s %s", uri, c.Address, c.Key)
		}
	}
}

// FuzzParseURI: no URI panics, and what New takes has the key in the path alone.
func FuzzParseURI(f *testing.F) {
	f.Add("hashivault://v.example.com:8200/transit/llama?namespace=n&cluster=c&auth=kubernetes&role=r&secret-file=f")
	f.Add("hashivault://llama")
	f.Add("hashivault:///../k")
	f.Fuzz(func(t *testing.T, uri string) {
		c, err := vault.ParseURI(uri)
		if err != nil {
			return
		}
		k, err := vault.New(c)
		if err != nil {
			return
		}
		if s := k.String(); strings.Contains(s, "..//") || strings.ContainsAny(c.Key, "/?#%") || bytes.ContainsAny([]byte(c.Mount), "?#%") {
			t.Errorf("%q became %s", uri, s)
		}
	})
}
