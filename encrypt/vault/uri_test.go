// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt/vault"
)

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
