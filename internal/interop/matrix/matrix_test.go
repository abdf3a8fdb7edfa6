// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"strings"
	"testing"

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
	"age":               ageHybrid,
	"key files":         keyFile,
	"PKCS#11":           token,
	"ocicrypt":          keyprovider,
}

// TestHelpersKeepTheContract runs the suite by way of the helpers: another
// binding fails, and every state of the service is told by its error within the
// time of the suite.
func TestHelpersKeepTheContract(t *testing.T) {
	dir := programs(t)
	for name, open := range providers {
		t.Run(name, func(t *testing.T) {
			p := open(t)
			if p.requests == nil {
				return // it has no service; its own tests run the suite
			}
			t.Setenv("PATH", dir)
			for _, v := range p.env {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
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

func openURI(t *testing.T, uri string) keyuri.Key {
	t.Helper()
	k, err := keyuri.Open(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
