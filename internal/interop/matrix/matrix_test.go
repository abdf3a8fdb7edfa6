// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyuri"
)

// provider is one kind of key, as a user of the command sees it.
type provider struct {
	recipient, identity string   // one key, to wrap for and to open with
	stranger            string   // another identity of the kind
	env                 []string // where its helper finds credentials
	classical           bool
	secrets             [][]byte
	requests            func() int
	service             encrypttest.Service
}

// providers are all that the command can be given as a key by URI.
var providers = map[string]func(*testing.T) provider{
	"AWS KMS":           aws,
	"Azure Key Vault":   func(t *testing.T) provider { return azure(t, "RSA") },
	"Azure Managed HSM": func(t *testing.T) provider { return azure(t, "AES") },
	"Google Cloud KMS":  google,
	"Vault":             vault,
	"age":               ageHybrid,
	"key files":         keyFile,
	"PKCS#11":           token,
	"ocicrypt":          keyprovider,
}

// TestProvidersKeepTheContract runs the suite by way of the helpers: another
// binding fails, and every state of the service is told by its error within the
// time of the suite.
func TestProvidersKeepTheContract(t *testing.T) {
	dir := programs(t)
	for name, open := range providers {
		t.Run(name, func(t *testing.T) {
			p := open(t)
			if p.requests == nil {
				return // it has no service; its own tests run the suite
			}
			setenv(t, append(p.env, "PATH="+dir))
			encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
				ours, theirs := openURI(t, p.identity), openURI(t, p.stranger)
				return encrypttest.Pair{
					Recipient: ours, Identity: ours, Stranger: theirs,
					Secrets: p.secrets, Requests: p.requests, Service: p.service,
				}
			})
		})
	}
}

// TestAnotherBindingFails: whoever carries a wrapped key to another artifact, or
// edits how long it is good for, has nothing, whatever key it is for.
func TestAnotherBindingFails(t *testing.T) {
	dir := programs(t)
	for name, open := range providers {
		t.Run(name, func(t *testing.T) {
			p := open(t)
			setenv(t, append(p.env, "PATH="+dir))
			recipient, identity := openRecipient(t, p.recipient), openIdentity(t, p.identity)
			key, b := encrypttest.NewBinding(t)
			stanzas := must(encrypt.WrapKey(t.Context(), key, b, recipient))(t)
			opened := must(encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, identity))(t)
			opened.Close()
			for what, change := range map[string]func(*encrypt.Binding, *encrypt.Stanza){
				"artifact":   func(b *encrypt.Binding, _ *encrypt.Stanza) { b.ArtifactID[0] ^= 1 },
				"commitment": func(b *encrypt.Binding, _ *encrypt.Stanza) { b.Commitment[0] ^= 1 },
				"manifest":   func(b *encrypt.Binding, _ *encrypt.Stanza) { b.Manifest = digest.FromString("another") },
				"expiry":     func(_ *encrypt.Binding, s *encrypt.Stanza) { s.NotAfter = s.NotAfter.Add(time.Hour) },
			} {
				b, s := b, stanzas[0]
				change(&b, &s)
				// The thief gives it the key id that it would have there.
				s.KeyID = identity.(encrypt.Keyed).KeyID(b)
				if _, err := encrypt.UnwrapKey(t.Context(), []encrypt.Stanza{s}, b, encrypttest.Now, identity); !errors.Is(err, encrypt.ErrNoKey) || errors.Is(err, encrypt.ErrNotMine) {
					t.Errorf("another %s: error %v, want ErrNoKey", what, err)
				}
			}
		})
	}
}

func openRecipient(t *testing.T, name string) encrypt.Recipient {
	t.Helper()
	if keyuri.Is(name) {
		return openURI(t, name)
	}
	return must(encrypt.ParseRecipient(string(must(os.ReadFile(name))(t))))(t)
}

func openIdentity(t *testing.T, name string) encrypt.Identity {
	t.Helper()
	if keyuri.Is(name) {
		return openURI(t, name)
	}
	return must(encrypt.ParseIdentity(string(must(os.ReadFile(name))(t))))(t)
}

func setenv(t *testing.T, env []string) {
	t.Helper()
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

func openURI(t *testing.T, uri string) keyuri.Key {
	t.Helper()
	k, err := keyuri.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
