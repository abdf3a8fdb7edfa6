// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"encoding/pem"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

var hpkeTypes = []string{encrypt.TypeMLKEM768X25519, encrypt.TypeMLKEM768P256, encrypt.TypeMLKEM1024P384, encrypt.TypeP256}

func generate(t testing.TB, stanzaType string) *encrypt.HPKEIdentity {
	t.Helper()
	id, err := encrypt.GenerateIdentity(stanzaType)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestHPKEContract(t *testing.T) {
	for _, stanzaType := range hpkeTypes {
		t.Run(stanzaType, func(t *testing.T) {
			encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
				id := generate(t, stanzaType)
				block, _ := pem.Decode([]byte(id.PEM()))
				return encrypttest.Pair{
					Recipient: id.Recipient(),
					Identity:  id,
					Stranger:  generate(t, stanzaType),
					Secrets:   [][]byte{block.Bytes},
					Binds:     true,
					Local:     true,
				}
			})
		})
	}
}

// TestHPKESizes pins the body of every type (FORMAT.md §8.4).
func TestHPKESizes(t *testing.T) {
	for stanzaType, enc := range map[string]int{
		encrypt.TypeMLKEM768X25519: 1120, encrypt.TypeMLKEM768P256: 1153, encrypt.TypeMLKEM1024P384: 1665, encrypt.TypeP256: 65,
	} {
		key, b := encrypttest.NewBinding(t)
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, generate(t, stanzaType).Recipient())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(stanzas[0].Body), enc+128+16; got != want {
			t.Errorf("%s: body of %d bytes, want %d", stanzaType, got, want)
		}
	}
}

func TestGenerateIdentityDefaultsToPostQuantum(t *testing.T) {
	id := generate(t, "")
	if got := id.Recipient().Type(); got != encrypt.DefaultType || encrypt.ClassOf(id.Recipient()) != encrypt.PostQuantum {
		t.Errorf("type %s, class %v", got, encrypt.ClassOf(id.Recipient()))
	}
	if _, err := encrypt.GenerateIdentity("hpke-x25519"); err == nil {
		t.Error("generated a key of an unknown type")
	}
}

// TestCheckClass is K30: a recipient that does not say its class is classical.
func TestCheckClass(t *testing.T) {
	strong, weak := generate(t, "").Recipient(), generate(t, encrypt.TypeP256).Recipient()
	silent := struct{ encrypt.Recipient }{strong}
	for _, test := range []struct {
		least encrypt.WrapClass
		r     encrypt.Recipient
		ok    bool
	}{
		{encrypt.PostQuantum, strong, true}, {encrypt.PostQuantum, weak, false}, {encrypt.PostQuantum, silent, false},
		{encrypt.Classical, weak, true}, {encrypt.Classical, silent, true},
	} {
		if err := encrypt.CheckClass(test.least, strong, test.r); (err == nil) != test.ok {
			t.Errorf("least %v, recipient %v: error %v", test.least, encrypt.ClassOf(test.r), err)
		}
	}
	for _, c := range []encrypt.WrapClass{encrypt.Classical, encrypt.PostQuantum} {
		if got, err := encrypt.ParseWrapClass(c.String()); err != nil || got != c {
			t.Errorf("%v parses as %v, %v", c, got, err)
		}
	}
	if _, err := encrypt.ParseWrapClass("Classical"); err == nil {
		t.Error("parsed an unknown class")
	}
}
