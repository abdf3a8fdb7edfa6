// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package keyuri_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
	"github.com/modelsec/modelsec-go/encrypt/keyuri"
)

// TestMain is the helper where the test binary was started by a helper's name.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "modelsec-helper-") {
		keyhelper.Main(serve)
		return
	}
	os.Exit(m.Run())
}

// serve leaves in the home directory what it was asked for and what it saw, and
// has the one key that lies there.
func serve(_ context.Context, name string) (*keyhelper.Key, error) {
	home := os.Getenv("HOME")
	seen := filepath.Base(os.Args[0]) + "\n" + name + "\n" + strings.Join(os.Environ(), "\n") + "\n"
	if err := os.WriteFile(filepath.Join(home, "seen"), []byte(seen), 0o600); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(home, "identity"))
	if err != nil {
		return nil, err
	}
	id, err := encrypt.ParseIdentity(string(text))
	if err != nil {
		return nil, err
	}
	r := id.Recipient()
	return &keyhelper.Key{Type: r.Type(), Resource: r.Bytes(), Recipient: r, Identity: id}, nil
}

// install makes a PATH in which the given helpers stand, and nothing else.
func install(t *testing.T, names ...string) (home string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, home := t.TempDir(), t.TempDir()
	for _, name := range names {
		if err := os.Symlink(self, filepath.Join(dir, "modelsec-helper-"+name)); err != nil {
			t.Fatal(err)
		}
	}
	id, err := encrypt.GenerateIdentity("")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, "identity"), []byte(id.PEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("HOME", home)
	return home
}

var uris = map[string]struct{ helper, key string }{
	"awskms:///arn:aws:kms:eu-central-1:111122223333:key/1":   {"awskms", ""},
	"azurekms://models.vault.azure.net/release":               {"azurekms", ""},
	"gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k": {"gcpkms", ""},
	"pkcs11:token=models;object=release":                      {"pkcs11", ""},
	"age1examplerecipient":                                    {"age", ""},
	"age:identities.txt":                                      {"age", ""},
	"helper:cdh:default/modelsec/llama":                       {"cdh", "default/modelsec/llama"},
	"helper:broker-2":                                         {"broker-2", ""},
	"helper:broker-2:a:b":                                     {"broker-2", "a:b"},
}

// TestHelpersAreFoundAndToldTheKey opens, wraps and unwraps through every form
// that a helper serves.
func TestHelpersAreFoundAndToldTheKey(t *testing.T) {
	home := install(t, "age", "awskms", "azurekms", "gcpkms", "pkcs11", "cdh", "broker-2")
	for uri, want := range uris {
		if want.key == "" && !strings.HasPrefix(uri, "helper:") {
			want.key = uri
		}
		k, err := keyuri.Open(t.Context(), uri)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		key, b := encrypttest.NewBinding(t)
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, k)
		if err != nil {
			t.Errorf("%s: wrap: %v", uri, err)
			continue
		}
		got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, k)
		if err != nil {
			t.Errorf("%s: unwrap: %v", uri, err)
			continue
		}
		got.Close()
		seen, err := os.ReadFile(filepath.Join(home, "seen"))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(seen), "\n")
		if lines[0] != "modelsec-helper-"+want.helper || lines[1] != want.key {
			t.Errorf("%s: %s was told %q, want %s and %q", uri, lines[0], lines[1], want.helper, want.key)
		}
	}
}

// TestHelpersSeeTheirOwnVariablesAlone: no service learns the credentials of
// another.
func TestHelpersSeeTheirOwnVariablesAlone(t *testing.T) {
	home := install(t, "awskms", "azurekms", "gcpkms", "pkcs11", "broker-2")
	own := map[string]string{
		"AWS_SECRET_ACCESS_KEY": "awskms", "AZURE_CLIENT_SECRET": "azurekms", "IDENTITY_HEADER": "azurekms",
		"GOOGLE_APPLICATION_CREDENTIALS": "gcpkms", "PKCS11_PIN": "pkcs11", "BROKER_2_TOKEN": "broker-2",
		"VAULT_TOKEN": "", "GITHUB_TOKEN": "", "AWSKMS_TOKEN": "", "LD_PRELOAD_NOT": "",
	}
	everybody := []string{"HTTPS_PROXY", "SSL_CERT_FILE", "PATH", "HOME"}
	for name := range own {
		t.Setenv(name, "a value")
	}
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	t.Setenv("SSL_CERT_FILE", "/ca.pem")
	for uri, helper := range map[string]string{
		"awskms:///k": "awskms", "azurekms://k": "azurekms", "gcpkms://k": "gcpkms", "pkcs11:k": "pkcs11", "helper:broker-2:k": "broker-2",
	} {
		if _, err := keyuri.Open(t.Context(), uri); err != nil {
			t.Fatalf("%s: %v", uri, err)
		}
		b, err := os.ReadFile(filepath.Join(home, "seen"))
		if err != nil {
			t.Fatal(err)
		}
		seen := strings.Split(string(b), "\n")
		has := func(name string) bool {
			return slices.ContainsFunc(seen, func(line string) bool { return strings.HasPrefix(line, name+"=") })
		}
		for name, owner := range own {
			if has(name) != (owner == helper) {
				t.Errorf("%s: sees %s: %v", helper, name, has(name))
			}
		}
		for _, name := range everybody {
			if !has(name) {
				t.Errorf("%s: does not see %s", helper, name)
			}
		}
	}
}

func TestMissingHelperSaysHowToInstallIt(t *testing.T) {
	install(t)
	for uri, install := range map[string]string{
		"awskms:///arn:aws:kms:eu-central-1:111122223333:key/1": "go -C examples/modelsec-helper-awskms install .",
		"azurekms://models.vault.azure.net/release":             "go -C examples/modelsec-helper-azurekms install .",
		"gcpkms://projects/p":                                   "go -C examples/modelsec-helper-gcpkms install .",
		"pkcs11:token=models":                                   "go -C examples/modelsec-helper-pkcs11 install .",
		"age1examplerecipient":                                  "go -C examples/modelsec-helper-age install .",
		"helper:cdh:default/modelsec/llama":                     "go -C examples/modelsec-helper-cdh install .",
		"helper:broker":                                         "",
		"ocicrypt:broker:key":                                   "",
	} {
		_, err := keyuri.Open(t.Context(), uri)
		missing, ok := errors.AsType[*keyuri.MissingHelperError](err)
		if !ok || missing.Install != install || !strings.Contains(err.Error(), install) || !strings.Contains(err.Error(), missing.Program) {
			t.Errorf("%s: error %v, want one that says %q", uri, err, install)
		}
		if dir := strings.TrimSuffix(strings.TrimPrefix(install, "go -C "), " install ."); install != "" {
			if _, err := os.Stat(filepath.Join("..", "..", dir)); err != nil {
				t.Errorf("%s: %v", install, err)
			}
		}
	}
}

// TestOnlyKnownFormsAreURIs: all else is a file, whatever it looks like.
func TestOnlyKnownFormsAreURIs(t *testing.T) {
	install(t)
	for uri := range uris {
		if !keyuri.Is(uri) {
			t.Errorf("%s is no URI", uri)
		}
	}
	for _, file := range []string{"", "identity.pub", "./helper:cdh", "/keys/awskms:", "s3kms://key", "AWSKMS:///key", "C:\\keys\\identity.pub"} {
		if keyuri.Is(file) {
			t.Errorf("%s is a URI", file)
		}
		if _, err := keyuri.Open(t.Context(), file); !errors.Is(err, keyuri.ErrUnknown) {
			t.Errorf("%q: error %v, want ErrUnknown", file, err)
		}
	}
}

// TestNothingElseIsRun: the name of a helper is no path.
func TestNothingElseIsRun(t *testing.T) {
	home := install(t, "cdh")
	for _, uri := range []string{"helper:", "helper:..", "helper:../cdh:k", "helper:/bin/sh", "helper:CDH", "helper:cdh/", "ocicrypt:../cdh:k", "ocicrypt:"} {
		if k, err := keyuri.Open(t.Context(), uri); err == nil || k != nil {
			t.Errorf("%s was opened", uri)
		}
	}
	if _, err := os.Stat(filepath.Join(home, "seen")); err == nil {
		t.Error("a helper was run")
	}
}

func TestVault(t *testing.T) {
	t.Setenv("VAULT_ADDR", "https://vault.example.com")
	t.Setenv("VAULT_TOKEN", "a token")
	k, err := keyuri.Open(t.Context(), "hashivault://release")
	if err != nil {
		t.Fatal(err)
	}
	if encrypt.ClassOf(k) != encrypt.PostQuantum {
		t.Errorf("class %v", encrypt.ClassOf(k))
	}
	for _, uri := range []string{"hashivault://", "hashivault://key?token=secret", "hashivault://user:password@host/key"} {
		if k, err := keyuri.Open(t.Context(), uri); err == nil || k != nil {
			t.Errorf("%s was opened", uri)
		}
	}
}
