// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/vectors"
	"github.com/modelsec/modelsec-go/provenance"
)

func everyKey(t testing.TB) map[string]crypto.Signer {
	t.Helper()
	keys := map[string]crypto.Signer{"Ed25519": newEd25519(t)}
	for _, curve := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		keys[curve.Params().Name] = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(curve, rand.Reader))
	}
	return keys
}

func sign(t testing.TB, key crypto.Signer, s provenance.Statement) *provenance.Bundle {
	t.Helper()
	signer := must[provenance.Signer](t)(provenance.KeySigner(key))
	return must[*provenance.Bundle](t)(signer.Sign(t.Context(), provenance.PayloadType, must[[]byte](t)(s.Encode(manifest))))
}

func TestSignAndVerifyWithEveryKey(t *testing.T) {
	for name, key := range everyKey(t) {
		b := sign(t, key, releaseStatement(t, nil))
		// The right key stands last: a hint may order the keys, and its absence
		// must not matter.
		v, err := provenance.KeyVerifier(newKey(t).Public(), newEd25519(t).Public(), key.Public()).Verify(t.Context(), b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if v.Signer.Key != publicPEM(t, key.Public()) || len(v.Subjects) != 1 || v.Subjects[0] != manifest || v.Statement.PredicateType != provenance.PredicateRelease {
			t.Errorf("%s: got %+v", name, v)
		}
		if len(v.Times) != 0 || v.LogEntries != 0 || v.Timestamps != 0 {
			t.Errorf("%s: a key proves no time, got %+v", name, v)
		}
		if _, err := provenance.KeyVerifier(newKey(t).Public()).Verify(t.Context(), b); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: with another key: got %v, want ErrSignature", name, err)
		}
	}
}

// TestK40TheHintChoosesNothing: a bundle that hints at a trusted key must not be
// believed, and one that hints at nobody must not be refused.
func TestK40TheHintChoosesNothing(t *testing.T) {
	key, other := newKey(t), newKey(t)
	hints := func(k crypto.Signer) string { return sign(t, k, cosignStatement()).Material().KeyHint }
	b := sign(t, key, cosignStatement())
	for hint, verifier := range map[string]provenance.Verifier{
		hints(other): provenance.KeyVerifier(other.Public(), key.Public()),
		"nonsense":   provenance.KeyVerifier(key.Public()),
	} {
		raw := strings.Replace(string(b.Bytes()), hints(key), hint, 1)
		forged := must[*provenance.Bundle](t)(provenance.ParseBundle([]byte(raw)))
		v, err := verifier.Verify(t.Context(), forged)
		if err != nil || v.Signer.Key != publicPEM(t, key.Public()) {
			t.Errorf("hint %q: got %+v, %v, want the key that signed", hint, v, err)
		}
		if _, err := provenance.KeyVerifier(other.Public()).Verify(t.Context(), forged); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("hint %q: the key hinted at was believed: %v", hint, err)
		}
	}
}

func TestVerifyRefusesEveryFlippedByte(t *testing.T) {
	key := newKey(t)
	verifier := provenance.KeyVerifier(key.Public())
	raw := sign(t, key, cosignStatement()).Bytes()
	want := sign(t, key, cosignStatement()).Envelope().Payload
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 1
		b, err := provenance.ParseBundle(flipped)
		if err != nil {
			continue
		}
		v, err := verifier.Verify(t.Context(), b)
		if err == nil && (!bytes.Equal(b.Envelope().Payload, want) || v.Subjects[0] != manifest) {
			t.Fatalf("byte %d: another payload was proven", i)
		}
	}
}

func TestVerifyRefusesOtherPayloads(t *testing.T) {
	key := newKey(t)
	signer := must[provenance.Signer](t)(provenance.KeySigner(key))
	for name, payload := range map[string][2]string{
		"another payload type":     {"application/json", string(must[[]byte](t)(cosignStatement().Encode(manifest)))},
		"no statement":             {provenance.PayloadType, `{}`},
		"a statement with a twin":  {provenance.PayloadType, `{"_type":"https://in-toto.io/Statement/v1","_type":"x","subject":[{"digest":{"sha256":"` + manifest.Encoded() + `"}}],"predicateType":"a"}`},
		"a statement without any":  {provenance.PayloadType, `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"a"}`},
		"a statement about sha512": {provenance.PayloadType, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha512":"00"}}],"predicateType":"a"}`},
	} {
		b := must[*provenance.Bundle](t)(signer.Sign(t.Context(), payload[0], []byte(payload[1])))
		if _, err := provenance.KeyVerifier(key.Public()).Verify(t.Context(), b); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

// brokenSigner is a device that returns something else than it should.
type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, 64), nil
}

func TestSignChecksWhatTheKeyReturned(t *testing.T) {
	signer := must[provenance.Signer](t)(provenance.KeySigner(brokenSigner{newKey(t)}))
	if _, err := signer.Sign(t.Context(), provenance.PayloadType, []byte("{}")); err == nil {
		t.Error("got a bundle with a signature that does not verify")
	}
}

func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	short := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for name, key := range map[string]crypto.Signer{"RSA": weak, "P-224": short} {
		if _, err := provenance.KeySigner(key); err == nil {
			t.Errorf("%s: KeySigner took it", name)
		}
		if _, err := provenance.KeyVerifier(key.Public()).Verify(t.Context(), sign(t, newKey(t), cosignStatement())); err == nil || errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: KeyVerifier: got %v, want a configuration error", name, err)
		}
		if _, err := provenance.ParsePublicKey([]byte(publicPEM(t, key.Public()))); err == nil {
			t.Errorf("%s: ParsePublicKey took it", name)
		}
		if err := provenance.RequireKey(key.Public()).Validate(); !errors.Is(err, provenance.ErrPolicy) {
			t.Errorf("%s: RequireKey: got %v, want ErrPolicy", name, err)
		}
	}
	for name, pub := range map[string]crypto.PublicKey{"nil": nil, "nil ECDSA": (*ecdsa.PublicKey)(nil), "short Ed25519": newEd25519(t)} {
		if _, err := provenance.KeyID(pub); err == nil {
			t.Errorf("%s: KeyID took it", name)
		}
	}
	if _, err := provenance.KeyVerifier().Verify(t.Context(), sign(t, newKey(t), cosignStatement())); err == nil {
		t.Error("a verifier without keys proved a bundle")
	}
}

func TestParsePrivateKeyReadsWhatToolsWrite(t *testing.T) {
	for name, key := range everyKey(t) {
		der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
		texts := []string{string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))}
		if k, ok := key.(*ecdsa.PrivateKey); ok {
			texts = append(texts, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must[[]byte](t)(x509.MarshalECPrivateKey(k))})))
		}
		for _, text := range texts {
			got, err := provenance.ParsePrivateKey([]byte(text))
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if a, b := must[string](t)(provenance.KeyID(got.Public())), must[string](t)(provenance.KeyID(key.Public())); a != b {
				t.Errorf("%s: key id %s, want %s", name, a, b)
			}
		}
	}
}

func TestParseKeysRefusesWhatReadsTwoWays(t *testing.T) {
	text := publicPEM(t, newKey(t).Public())
	for name, in := range map[string]string{
		"two keys":       text + publicPEM(t, newKey(t).Public()),
		"text before":    "key:\n" + text,
		"text after":     text + "x",
		"headers":        strings.Replace(text, "-----\n", "-----\nA: b\n\n", 1),
		"another type":   strings.ReplaceAll(text, "PUBLIC", "RSA PUBLIC"),
		"not DER":        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
		"empty":          "",
		"over the limit": text + strings.Repeat("\n", 20<<10),
	} {
		if _, err := provenance.ParsePublicKey([]byte(in)); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if _, err := provenance.ParsePrivateKey([]byte(in)); err == nil {
			t.Errorf("%s: accepted as a private key", name)
		}
	}
	_, err := provenance.ParsePrivateKey([]byte("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"))
	if err == nil || !strings.Contains(err.Error(), "passphrase") {
		t.Errorf("encrypted key: got %v, want an error that says so", err)
	}
}

// wycheproofFile is the part of the schema that signature files share.
type wycheproofFile struct {
	TestGroups []struct {
		PublicKeyPEM string `json:"publicKeyPem"`
		Tests        []struct {
			TcID     int    `json:"tcId"`
			Comment  string `json:"comment"`
			Msg, Sig string
			Result   string   `json:"result"`
			Flags    []string `json:"flags"`
		} `json:"tests"`
	} `json:"testGroups"`
}

func TestWycheproofSignatures(t *testing.T) {
	dir := vectors.Dir(t, "wycheproof")
	for _, name := range []string{"ecdsa_secp256r1_sha256", "ecdsa_secp384r1_sha384", "ecdsa_secp521r1_sha512", "ed25519"} {
		t.Run(name, func(t *testing.T) {
			var file wycheproofFile
			if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(filepath.Join(dir, name+"_test.json"))), &file); err != nil {
				t.Fatal(err)
			}
			tried := 0
			for _, g := range file.TestGroups {
				pub, err := provenance.ParsePublicKey([]byte(g.PublicKeyPEM))
				if err != nil {
					t.Fatal(err)
				}
				for _, tt := range g.Tests {
					msg, sig := must[[]byte](t)(hex.DecodeString(tt.Msg)), must[[]byte](t)(hex.DecodeString(tt.Sig))
					tried++
					if got, want := provenance.VerifySignature(pub, msg, sig), tt.Result == "valid"; got != want {
						t.Errorf("test %d (%s, %v): got %v, want %v", tt.TcID, tt.Comment, tt.Flags, got, want)
					}
				}
			}
			if tried < 100 {
				t.Errorf("only %d signatures tried", tried)
			}
		})
	}
}
