// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/cosign"
)

func keyFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKeyOfCosignSigns: password.key is of cosign v2.6.5, empty.key of v3.1.3.
func TestKeyOfCosignSigns(t *testing.T) {
	for name, password := range map[string]string{"password": "hunter2", "empty": ""} {
		text := keyFile(t, name+".key")
		if !cosign.IsKey(text) {
			t.Errorf("%s: not taken for a key of cosign's", name)
		}
		key, err := cosign.ParseKey(text, []byte(password))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		pub, err := provenance.ParsePublicKey(keyFile(t, name+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		signer, err := provenance.KeySigner(key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := signer.Sign(t.Context(), provenance.PayloadType, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"`+
			strings.Repeat("a", 64)+`"}}],"predicateType":"https://example.com/p"}`))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := provenance.KeyVerifier(pub).Verify(t.Context(), b); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, wrong := range []string{password + "x", "y"} {
			if key, err := cosign.ParseKey(text, []byte(wrong)); !errors.Is(err, cosign.ErrPassword) || key != nil {
				t.Errorf("%s with %q: got %v", name, wrong, err)
			}
		}
	}
}

// TestKeyFileCannotAskForMore than cosign ever did: the cost stands in the file.
func TestKeyFileCannotAskForMore(t *testing.T) {
	block, _ := pem.Decode(keyFile(t, "empty.key"))
	changed := func(from, to string) []byte {
		if !bytes.Contains(block.Bytes, []byte(from)) {
			t.Fatalf("no %s in %s", from, block.Bytes)
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: bytes.Replace(block.Bytes, []byte(from), []byte(to), 1)})
	}
	long := base64.StdEncoding.EncodeToString(make([]byte, 65))
	for what, text := range map[string][]byte{
		"memory":         changed(`"N":65536`, `"N":1073741824`),
		"nothing":        changed(`"N":65536`, `"N":2`),
		"blocks":         changed(`"r":8`, `"r":8192`),
		"passes":         changed(`"p":1`, `"p":65536`),
		"another kdf":    changed(`"scrypt"`, `"none"`),
		"another cipher": changed(`"nacl/secretbox"`, `"none"`),
		"a long salt":    changed(`"salt":"`, `"salt":"`+long[:len(long)-4]),
		"no salt":        changed(`"salt":`, `"pepper":`),
		"a long nonce":   changed(`"nonce":"`, `"nonce":"AAAA`),
		"no JSON":        changed(`{`, `[`),
		"a large file":   bytes.Repeat([]byte("\n"), 1<<17),
		"another type":   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: block.Bytes}),
		"no PEM":         []byte("hunter2"),
	} {
		if _, err := cosign.ParseKey(text, nil); err == nil || errors.Is(err, cosign.ErrPassword) {
			t.Errorf("%s: got %v, want a refusal before any work", what, err)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	block, _ := pem.Decode(keyFile(f, "empty.key"))
	f.Add(block.Bytes)
	f.Add([]byte(`{"kdf":{"name":"scrypt","params":{"N":32768,"r":8,"p":1},"salt":"AA=="},"cipher":{"name":"nacl/secretbox","nonce":"AA=="},"ciphertext":"AA=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		text := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED COSIGN PRIVATE KEY", Bytes: b})
		if key, err := cosign.ParseKey(text, nil); (key == nil) == (err == nil) {
			t.Errorf("got %v and %v", key, err)
		}
	})
}
