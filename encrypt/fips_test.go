// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"crypto/fips140"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// TestFIPSTableOfKeyFiles holds docs/KEYS.md §1 to the truth: HPKE works in
// every mode but one, module v1.0.0 where FIPS 140-3 is enforced.
func TestFIPSTableOfKeyFiles(t *testing.T) {
	works := !fips140.Enforced() || fips140.Version() != "v1.0.0"
	for _, stanzaType := range []string{encrypt.TypeMLKEM768X25519, encrypt.TypeMLKEM768P256, encrypt.TypeMLKEM1024P384, encrypt.TypeP256} {
		id, err := encrypt.GenerateIdentity(stanzaType)
		if err == nil {
			key, b := encrypttest.NewBinding(t)
			var stanzas []encrypt.Stanza
			if stanzas, err = encrypt.WrapKey(t.Context(), key, b, id.Recipient()); err == nil {
				var got *encrypt.Key
				if got, err = encrypt.UnwrapKey(t.Context(), stanzas, b, now, id); err == nil {
					got.Close()
				}
			}
		}
		if (err == nil) != works {
			t.Errorf("%s: error %v, FIPS 140 module %s, enforced: %v", stanzaType, err, fips140.Version(), fips140.Enforced())
		}
	}
}
