// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package age_test

import (
	"crypto/ed25519"
	"crypto/fips140"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/age"
)

func TestParseRefuses(t *testing.T) {
	text, file := tokenKey("ours")
	for name, s := range map[string]string{
		"nothing": "", "a word": "recipient", "a line too long": strings.Repeat("a", 1<<20),
		"damaged": text[:len(text)-1] + "q", "an identity": generate(t, "x25519"), "github": "github:somebody", "ssh-dss": "ssh-dss AAAA",
	} {
		if _, err := age.ParseRecipient(t.Context(), s, nil); err == nil || len(err.Error()) > 500 {
			t.Errorf("recipient: %s: error %v", name, err)
		}
	}
	block := func(kind string) string { return generate(t, kind) }
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(ed25519.NewKeyFromSeed(make([]byte, 32)), "", []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]string{
		"nothing": "", "comments": "# public key: age1\n", "a word": "identity", "two": generate(t, "hybrid") + "\n" + generate(t, "x25519"),
		"a plugin without recipient": file[strings.LastIndex(file, "AGE-"):], "a plugin with another's": strings.Replace(file, text, "age1x", 1),
		"damaged": strings.Replace(block("x25519"), "1", "2", 1), "a locked SSH key": string(pem.EncodeToMemory(locked)),
		"half an SSH key": block("ssh-ed25519")[:100], "too long": strings.Repeat("#\n", 1<<20),
	} {
		if _, err := age.ParseIdentity(s, nil); err == nil || len(err.Error()) > 500 {
			t.Errorf("identity: %s: error %v", name, err)
		}
	}
}

// FuzzParseIdentity: no file panics or puts itself into an error.
func FuzzParseIdentity(f *testing.F) {
	_, file := tokenKey("ours")
	for _, kind := range []string{"x25519", "hybrid", "ssh-ed25519"} {
		f.Add(generate(f, kind))
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := age.ParseIdentity(text, nil); err == nil {
			id.KeyID(encrypt.Binding{})
		}
	})
}

func TestEnforcedFIPS(t *testing.T) {
	if !fips140.Enforced() {
		// The test runs itself where FIPS 140-3 is enforced.
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestEnforcedFIPS$")
		cmd.Env = append(os.Environ(), "GODEBUG=fips140=only")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	for _, kind := range []string{"", "AGE-SECRET-KEY-1"} {
		if _, err := age.ParseIdentity(kind, nil); !errors.Is(err, encrypt.ErrFIPS) {
			t.Errorf("identity: error %v, want ErrFIPS", err)
		}
	}
	if _, err := age.ParseRecipient(t.Context(), "age1", nil); !errors.Is(err, encrypt.ErrFIPS) {
		t.Errorf("recipient: error %v, want ErrFIPS", err)
	}
}
