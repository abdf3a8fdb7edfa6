// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms_test

import (
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/azurekms"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

const version = "0123456789abcdef0123456789abcdef"

var uris = []struct{ uri, want string }{
	{"azurekms://models.vault.azure.net/release", ""},
	{"azurekms://models.vault.azure.net/release/" + version, ""},
	{"azurekms://models.managedhsm.azure.net/release?algorithm=A256KW", ""},
	{"azurekms://models.vault.azure.net/release?algorithm=RSA-OAEP-256&endpoint=10.0.0.4:443", ""},
	{"azurekms://models.vault.azure.net/release?endpoint=[fd00::4]:443", ""},

	{"", "does not begin with azurekms://"},
	{"azurekms:models.vault.azure.net/release", "does not begin with azurekms://"},
	{"azurekms://", "is not HOST/KEY"},
	{"azurekms://models/release", "the vault's host in full"},
	{"azurekms://Models.vault.azure.net/release", "in lower case"},
	{"azurekms://models.vault.azure.net:8443/release", "the vault's host in full"},
	{"azurekms://user@models.vault.azure.net/release", "the vault's host in full"},
	{"azurekms://models.vault.azure.net/", "names no key"},
	{"azurekms://models.vault.azure.net/..", "names no key"},
	{"azurekms://models.vault.azure.net/release/current", "is not HOST/KEY"},
	{"azurekms://models.vault.azure.net/release/" + strings.ToUpper(version), "is not HOST/KEY"},
	{"azurekms://models.vault.azure.net/keys/release/" + version, "is not HOST/KEY"},
	{"azurekms://models.vault.azure.net/release?algorithm=RSA-OAEP", "known are RSA-OAEP-256 and A256KW"},
	{"azurekms://models.vault.azure.net/release?algorithm=A256KW&algorithm=A256KW", "there twice"},
	{"azurekms://models.vault.azure.net/release?endpoint=https://10.0.0.4", "want HOST:PORT"},
	{"azurekms://models.vault.azure.net/release?tenant=a", "known are algorithm and endpoint"},
	{"azurekms://models.vault.azure.net/release?%zz", "invalid URL escape"},
}

func parse(uri string) (*azurekms.Key, error) {
	return azurekms.New(uri, &azurekms.Options{Credential: token("")})
}

func TestURI(t *testing.T) {
	for _, test := range uris {
		k, err := parse(test.uri)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.uri, err)
		case test.want == "" && k.String() != test.uri:
			t.Errorf("%s reads back as %s", test.uri, k)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want %q in it", test.uri, err, test.want)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, test := range uris {
		f.Add(test.uri)
	}
	_, b := encrypttest.NewBinding(f)
	f.Fuzz(func(t *testing.T, uri string) {
		if k, err := parse(uri); err == nil && len(k.KeyID(b)) != 32 {
			t.Errorf("key id %q", k.KeyID(b))
		}
	})
}

// TestKeyIDsAreStable: whoever changes what they are made from locks out every
// reader of what was published before.
func TestKeyIDsAreStable(t *testing.T) {
	_, b := encrypttest.NewBinding(t)
	for uri, stanzaType := range map[string]string{
		"azurekms://models.vault.azure.net/release":                       "azure-rsa-oaep-256",
		"azurekms://models.vault.azure.net/Release/" + version:            "azure-rsa-oaep-256",
		"azurekms://models.vault.azure.net/release?endpoint=10.0.0.4:443": "azure-rsa-oaep-256",
		"azurekms://models.vault.azure.net/release?algorithm=A256KW":      "azure-a256kw",
	} {
		k, err := parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := k.KeyID(b), b.KeyID(stanzaType, []byte("https://models.vault.azure.net/keys/release")); got != want {
			t.Errorf("%s: key id %s, want %s", uri, got, want)
		}
		want := encrypt.Classical
		if stanzaType == azurekms.TypeAES {
			want = encrypt.PostQuantum
		}
		if got := encrypt.ClassOf(k); got != want {
			t.Errorf("%s: class %v, want %v", uri, got, want)
		}
	}
}
