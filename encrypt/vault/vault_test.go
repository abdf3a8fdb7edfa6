// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
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

// TestTransportOfTheProcessIsNotUsed: a program may have wrapped it, or made it
// believe everybody.
func TestTransportOfTheProcessIsNotUsed(t *testing.T) {
	s := newServer(t)
	defer func(old http.RoundTripper) { http.DefaultTransport = old }(http.DefaultTransport)
	http.DefaultTransport = struct{ http.RoundTripper }{http.DefaultTransport}
	if err := roundTrip(t, open(t, vault.Config{Address: s.URL, Key: "ours", Auth: auths["token"]})); err != nil {
		t.Error(err)
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
