// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package age_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/fips140"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	upstream "filippo.io/age"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/age"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// generate returns a fresh private key as the text of a file.
func generate(t testing.TB, kind string) string {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	var private any
	switch kind {
	case "x25519":
		id, err := upstream.GenerateX25519Identity()
		must(err)
		return "# a comment\n" + id.String() + "\n"
	case "hybrid":
		id, err := upstream.GenerateHybridIdentity()
		must(err)
		return id.String()
	case "ssh-ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		must(err)
		private = key
	case "ssh-rsa":
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		must(err)
		private = key
	}
	block, err := ssh.MarshalPrivateKey(private, "somebody@somewhere")
	must(err)
	return string(pem.EncodeToMemory(block))
}

func identity(t testing.TB, text string) *age.Identity {
	t.Helper()
	id, err := age.ParseIdentity(text, &age.Options{Timeout: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func recipient(t testing.TB, id *age.Identity) *age.Recipient {
	t.Helper()
	r, err := id.Recipient(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestContract(t *testing.T) {
	for kind, class := range map[string]encrypt.WrapClass{
		"x25519": encrypt.Classical, "hybrid": encrypt.PostQuantum, "ssh-ed25519": encrypt.Classical, "ssh-rsa": encrypt.Classical,
	} {
		t.Run(kind, func(t *testing.T) {
			ours, theirs := generate(t, kind), generate(t, kind)
			encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
				id := identity(t, ours)
				r := recipient(t, id)
				if encrypt.ClassOf(r) != class {
					t.Errorf("class %v, want %v", encrypt.ClassOf(r), class)
				}
				return encrypttest.Pair{Recipient: r, Identity: id, Stranger: identity(t, theirs), Secrets: [][]byte{[]byte(strings.TrimSpace(ours))}, Local: true}
			})
		})
	}
}

func TestPluginContract(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		dir := installPlugin(t)
		_, ours := tokenKey("ours")
		_, theirs := tokenKey("theirs")
		id := identity(t, ours)
		enter := func(state string) func(*testing.T) {
			return func(t *testing.T) {
				if err := os.WriteFile(filepath.Join(dir, "state"), []byte(state), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		heal := func(*testing.T) { os.Remove(filepath.Join(dir, "state")) }
		r := recipient(t, id)
		t.Cleanup(func() {
			heal(t)
			r.Wait()
			id.Wait()
		})
		const reason = "the protocol of plugins has one answer for every failure"
		return encrypttest.Pair{
			Recipient: r, Identity: id, Stranger: identity(t, theirs),
			Requests: func() int {
				info, err := os.Stat(filepath.Join(dir, "requests"))
				if err != nil {
					return 0
				}
				return int(info.Size())
			},
			Service: encrypttest.Service{
				Stall: enter("stalled"), Quote: enter("quoting"), Heal: heal,
				Without: map[string]string{"Disable": reason, "Deny": reason, "Throttle": reason, "Fail": reason},
			},
		}
	})
}

// TestPluginClass: a plugin is classical unless it labels its stanzas, and may
// not change its mind; a passphrase by way of a plugin is refused (K31).
func TestPluginClass(t *testing.T) {
	dir := installPlugin(t)
	for kind, want := range map[string]encrypt.WrapClass{"classical": encrypt.Classical, "post-quantum": encrypt.PostQuantum} {
		text, _ := tokenKey(kind)
		r, err := age.ParseRecipient(t.Context(), text, nil)
		if err != nil || encrypt.ClassOf(r) != want {
			t.Errorf("%s: class %v, error %v", kind, encrypt.ClassOf(r), err)
		}
		if want != encrypt.PostQuantum {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "state"), []byte("unlabelled"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, b := encrypttest.NewBinding(t)
		if _, err := r.Wrap(t.Context(), make([]byte, 128), b); err == nil || !strings.Contains(err.Error(), "another class") {
			t.Errorf("a plugin that became classical: error %v", err)
		}
		if err := os.Remove(filepath.Join(dir, "state")); err != nil {
			t.Fatal(err)
		}
	}
	text, _ := tokenKey("secret passphrase")
	if _, err := age.ParseRecipient(t.Context(), text, nil); err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("a plugin that wraps with scrypt: error %v", err)
	}
}

func TestMissingPluginIsNamed(t *testing.T) {
	text, file := tokenKey("ours")
	if _, err := age.ParseRecipient(t.Context(), text, nil); err == nil || !strings.Contains(err.Error(), "age-plugin-modelsectest in PATH") {
		t.Errorf("error %v", err)
	}
	id := identity(t, file)
	_, b := encrypttest.NewBinding(t)
	_, err := id.Unwrap(t.Context(), encrypt.Stanza{Type: age.Type, KeyID: id.KeyID(b), Body: sealed(t, file, make([]byte, 128))}, b)
	if err == nil || !strings.Contains(err.Error(), "age-plugin-modelsectest in PATH") {
		t.Errorf("error %v", err)
	}
}

// sealed is an age file for the recipient of a file of identities, made while
// the plugin was there.
func sealed(t *testing.T, file string, content []byte) []byte {
	t.Helper()
	var out []byte
	t.Run("sealed", func(t *testing.T) {
		installPlugin(t)
		_, b := encrypttest.NewBinding(t)
		s, err := recipient(t, identity(t, file)).Wrap(t.Context(), content, b)
		if err != nil {
			t.Fatal(err)
		}
		out = s.Body
	})
	return out
}

// TestNoMoreThanFourPluginsRun: programs that do not answer pile up to a bound.
func TestNoMoreThanFourPluginsRun(t *testing.T) {
	dir := installPlugin(t)
	text, _ := tokenKey("ours")
	r, err := age.ParseRecipient(t.Context(), text, nil)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := os.WriteFile(state, []byte("stalled"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, b := encrypttest.NewBinding(t)
	for range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := r.Wrap(ctx, make([]byte, 128), b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want DeadlineExceeded", err)
		}
		cancel()
	}
	if err := os.Remove(state); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Wrap(t.Context(), make([]byte, 128), b); err != nil { // when one of them has ended
		t.Error(err)
	}
	r.Wait()
	requests, err := os.ReadFile(filepath.Join(dir, "requests"))
	if err != nil || len(requests) > 6 { // the first, four that stalled, the last
		t.Errorf("%d programs ran, error %v", len(requests), err)
	}
}

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
