// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package age_test

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age/plugin"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/age"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// TestProgramsOfAgeReadStanzas: a stanza is an age file, for age itself too, and
// what age writes is a stanza.
func TestProgramsOfAgeReadStanzas(t *testing.T) {
	age1 := program(t, "age")
	dir := t.TempDir()
	for _, kind := range []string{"x25519", "hybrid", "ssh-ed25519", "ssh-rsa"} {
		file := filepath.Join(dir, kind)
		text := generate(t, kind)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		id := identity(t, text)
		r := recipient(t, id)
		payload := make([]byte, 128)
		rand.Read(payload)
		_, b := encrypttest.NewBinding(t)
		s, err := r.Wrap(t.Context(), payload, b)
		if err != nil {
			t.Fatal(err)
		}
		if got := output(t, s.Body, age1, "-d", "-i", file); !bytes.Equal(got, payload) {
			t.Errorf("%s: age decrypts %d other bytes", kind, len(got))
		}
		s.Body = output(t, payload, age1, "-r", r.String())
		if got, err := id.Unwrap(t.Context(), s, b); err != nil || !bytes.Equal(got, payload) {
			t.Errorf("%s: what age encrypted opens as %d bytes, error %v", kind, len(got), err)
		}
	}
}

func output(t *testing.T, in []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(in)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return out
}

// TestProgramsOfAgeAsPlugins runs plugins that others wrote: that for post-quantum
// keys, and that for passphrases, which must not become a recipient.
func TestProgramsOfAgeAsPlugins(t *testing.T) {
	pq := program(t, "age-plugin-pq")
	native := generate(t, "hybrid")
	converted := string(output(t, []byte(native), pq, "-identity"))
	public := recipient(t, identity(t, native)).String()
	id := identity(t, "# public key: "+public+"\n"+converted)
	if !encrypt.CallsOut(id) {
		t.Error("the plugin is not used")
	}
	key, b := encrypttest.NewBinding(t)
	for _, r := range []*age.Recipient{recipient(t, id), recipient(t, identity(t, native))} {
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, r)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []*age.Identity{id, identity(t, native)} {
			got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, id)
			if err != nil {
				t.Fatal(err)
			}
			got.Close()
		}
	}
	program(t, "age-plugin-batchpass")
	t.Setenv("AGE_PASSPHRASE", "correct horse")
	if _, err := age.ParseRecipient(t.Context(), plugin.EncodeRecipient("batchpass", nil), nil); err == nil {
		t.Error("a passphrase became a recipient")
	}
}
