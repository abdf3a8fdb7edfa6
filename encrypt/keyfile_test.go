// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"crypto/fips140"
	"errors"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

func TestKeyFilesRoundTrip(t *testing.T) {
	for _, stanzaType := range hpkeTypes {
		id := generate(t, stanzaType)
		key, b := encrypttest.NewBinding(t)
		for name, form := range map[string]func(string) string{
			"as written":      func(s string) string { return s },
			"with CRLF":       func(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") },
			"in white space":  func(s string) string { return "\n  " + s + "\n\n" },
			"without newline": strings.TrimSpace,
		} {
			r, err := encrypt.ParseRecipient(form(id.Recipient().PEM()))
			if err != nil {
				t.Fatalf("%s recipient %s: %v", stanzaType, name, err)
			}
			back, err := encrypt.ParseIdentity(form(id.PEM()))
			if err != nil {
				t.Fatalf("%s identity %s: %v", stanzaType, name, err)
			}
			stanzas, err := encrypt.WrapKey(t.Context(), key, b, r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, back)
			if err != nil {
				t.Fatalf("%s %s: %v", stanzaType, name, err)
			}
			got.Close()
		}
	}
}

func TestParseKeyFileRefusesOtherEncodings(t *testing.T) {
	good := generate(t, encrypt.TypeP256).PEM()
	public := generate(t, encrypt.TypeP256).Recipient().PEM()
	header := "Type: " + encrypt.TypeP256 + "\n"
	lines := strings.Split(good, "\n")
	for name, text := range map[string]string{
		"empty":            "",
		"garbage before":   "x\n" + good,
		"garbage after":    good + "x",
		"two keys":         good + good,
		"a public key":     public,
		"no type":          strings.Replace(good, header+"\n", "", 1),
		"type twice":       strings.Replace(good, header, header+header, 1),
		"another header":   strings.Replace(good, header, header+"Comment: x\n", 1),
		"another type":     strings.Replace(good, header, "Type: "+encrypt.DefaultType+"-x\n", 1),
		"type of another":  strings.Replace(good, header, "Type: "+encrypt.TypeMLKEM1024P384+"\n", 1) + "x",
		"a line cut short": strings.Join(append(lines[:3:3], lines[4:]...), "\n"),
		"spaces inside":    strings.Replace(good, lines[3], lines[3][:8]+" "+lines[3][8:], 1),
		"too long":         good + strings.Repeat("\n", 16<<10),
	} {
		if _, err := encrypt.ParseIdentity(text); err == nil {
			t.Errorf("%s: parsed", name)
		} else if strings.Contains(err.Error(), lines[3]) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
	if _, err := encrypt.ParseRecipient(good); err == nil {
		t.Error("a private key was taken for a recipient")
	}
}

// TestPassphrase also holds strict FIPS mode to its typed refusal.
func TestPassphrase(t *testing.T) {
	id := generate(t, "")
	text, err := encrypt.EncryptIdentity(id, []byte("correct horse"))
	if fips140.Enforced() {
		if !errors.Is(err, encrypt.ErrFIPS) {
			t.Errorf("encrypt under FIPS: error %v, want ErrFIPS", err)
		}
		if _, err := encrypt.ParseEncryptedIdentity(encryptedIdentity, []byte("x")); !errors.Is(err, encrypt.ErrFIPS) {
			t.Errorf("parse under FIPS: error %v, want ErrFIPS", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	back, err := encrypt.ParseEncryptedIdentity(text, []byte("correct horse"))
	if err != nil || back.PEM() != id.PEM() {
		t.Fatalf("another identity came back (error %v)", err)
	}
	if _, err := encrypt.ParseEncryptedIdentity(text, []byte("wrong horse")); !errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("wrong passphrase: error %v, want ErrDecrypt", err)
	}
	// The type is authenticated: the seeds of two hybrids have one length.
	other := strings.Replace(text, encrypt.TypeMLKEM768X25519, encrypt.TypeMLKEM768P256, 1)
	if _, err := encrypt.ParseEncryptedIdentity(other, []byte("correct horse")); !errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("type exchanged: error %v, want ErrDecrypt", err)
	}
	if _, err := encrypt.ParseIdentity(text); err == nil {
		t.Error("parsed without the passphrase")
	}
	if _, err := encrypt.EncryptIdentity(id, nil); err == nil {
		t.Error("encrypted under the empty passphrase")
	}
}

// encryptedIdentity has version 1, cost 15 and no key that anybody knows.
const encryptedIdentity = `-----BEGIN MODELSEC ENCRYPTED IDENTITY-----
Type: hpke-p256

AQ8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END MODELSEC ENCRYPTED IDENTITY-----
`

// TestPassphraseCostIsBounded: a key file says how much memory opening takes.
func TestPassphraseCostIsBounded(t *testing.T) {
	for _, head := range []string{"AQ4A", "ARUA", "Af8A", "AA8A", "Ag8A"} {
		text := strings.Replace(encryptedIdentity, "AQ8A", head, 1)
		if _, err := encrypt.ParseEncryptedIdentity(text, []byte("x")); err == nil || errors.Is(err, encrypt.ErrDecrypt) || errors.Is(err, encrypt.ErrFIPS) {
			t.Errorf("%s: error %v, want a refusal before scrypt", head, err)
		}
	}
}

func FuzzParseKeyFile(f *testing.F) {
	for _, stanzaType := range hpkeTypes {
		id := generate(f, stanzaType)
		f.Add(id.PEM())
		f.Add(id.Recipient().PEM())
	}
	f.Add(encryptedIdentity)
	f.Fuzz(func(t *testing.T, text string) {
		normal := strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n"))
		if id, err := encrypt.ParseIdentity(text); err == nil && strings.TrimSpace(id.PEM()) != normal {
			t.Errorf("identity encodes as %q", id.PEM())
		}
		if r, err := encrypt.ParseRecipient(text); err == nil && strings.TrimSpace(r.PEM()) != normal {
			t.Errorf("recipient encodes as %q", r.PEM())
		}
	})
}
