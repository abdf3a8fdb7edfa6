// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package age_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	upstream "filippo.io/age"
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
