// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

func TestVerifierRefusesTrustThatProvesNothing(t *testing.T) {
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	for what, o := range map[string]sigstore.VerifierOptions{
		"nothing":                 {},
		"an empty root":           {TrustedRoots: [][]byte{[]byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)}},
		"no root":                 {TrustedRoots: [][]byte{nil}},
		"a root that is no JSON":  {TrustedRoots: [][]byte{[]byte("{")}},
		"a root of another kind":  {TrustedRoots: [][]byte{[]byte(`{"mediaType":"application/json"}`)}},
		"a root without an end":   {TrustedRoots: [][]byte{bytes.Repeat([]byte(" "), 2<<20)}},
		"an unsupported key":      {Keys: []crypto.PublicKey{rsaKey.Public()}},
		"no key where one stands": {Keys: []crypto.PublicKey{nil}},
	} {
		if _, err := sigstore.NewVerifier(o); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestVerifierWithKeysAlone(t *testing.T) {
	key := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	b := must(must(provenance.KeySigner(key)).Sign(t.Context(), provenance.PayloadType, []byte(statement)))
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{Keys: []crypto.PublicKey{other.Public(), key.Public()}}))
	got, err := v.Verify(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	want, err := provenance.KeyVerifier(key.Public()).Verify(t.Context(), b)
	if err != nil || got.Signer != want.Signer || got.Statement.PredicateType != want.Statement.PredicateType || got.Subjects[0] != want.Subjects[0] ||
		got.LogEntries != 0 || got.Timestamps != 0 || len(got.Times) != 0 {
		t.Errorf("proved %+v, package provenance proves %+v (%v)", got, want, err)
	}
	v = must(sigstore.NewVerifier(sigstore.VerifierOptions{Keys: []crypto.PublicKey{other.Public()}}))
	if _, err := v.Verify(t.Context(), b); !errors.Is(err, provenance.ErrSignature) {
		t.Errorf("another key: got %v", err)
	}
	// The hint is not signed, and chooses nothing.
	hinted := must(provenance.ParseBundle(bytes.Replace(b.Bytes(), []byte(`"hint":"`), []byte(`"hint":"x`), 1)))
	v = must(sigstore.NewVerifier(sigstore.VerifierOptions{Keys: []crypto.PublicKey{key.Public()}}))
	if _, err := v.Verify(t.Context(), hinted); err != nil {
		t.Errorf("another hint: %v", err)
	}
}

func TestVerifierRefusesKeysForCertificatesAndTheReverse(t *testing.T) {
	i := newInstance(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	keyed := must(must(provenance.KeySigner(key)).Sign(t.Context(), provenance.PayloadType, []byte(statement)))
	certified, err := sign(t, i.options(t))
	if err != nil {
		t.Fatal(err)
	}
	root := i.trustedRoot(t, i.authorities())
	for what, c := range map[string]struct {
		options sigstore.VerifierOptions
		bundle  *provenance.Bundle
	}{
		"a key under a root":       {sigstore.VerifierOptions{TrustedRoots: [][]byte{root}}, keyed},
		"a certificate under keys": {sigstore.VerifierOptions{Keys: []crypto.PublicKey{key.Public()}}, certified},
	} {
		if _, err := must(sigstore.NewVerifier(c.options)).Verify(t.Context(), c.bundle); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: got %v", what, err)
		}
	}
}

// TestVerifierRefusesBundlesThatReadTwoWays: protobuf takes snake case and a
// second spelling of base64, package provenance takes neither.
func TestVerifierRefusesBundlesThatReadTwoWays(t *testing.T) {
	i := newInstance(t)
	b, err := sign(t, i.options(t))
	if err != nil {
		t.Fatal(err)
	}
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{i.trustedRoot(t, i.authorities())}}))
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	forged := bytes.Replace(doc["dsseEnvelope"], []byte(`"payload":"`), []byte(`"payload":"AAAA`), 1)
	for name, twin := range map[string]json.RawMessage{"dsse_envelope": forged, "message_signature": json.RawMessage(`{}`), "x": json.RawMessage(`1`)} {
		doc[name] = twin
		two, err := provenance.ParseBundle(must(json.Marshal(doc)))
		delete(doc, name)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := v.Verify(t.Context(), two); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	doc["dsseEnvelope"] = forged
	if _, err := v.Verify(t.Context(), must(provenance.ParseBundle(must(json.Marshal(doc))))); !errors.Is(err, provenance.ErrSignature) && !errors.Is(err, provenance.ErrFormat) {
		t.Errorf("forged payload: got %v", err)
	}
}

func TestVerifierBoundsWhatItReads(t *testing.T) {
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{Keys: []crypto.PublicKey{must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()}}))
	if _, err := v.Verify(t.Context(), nil); !errors.Is(err, provenance.ErrFormat) {
		t.Errorf("no bundle: got %v", err)
	}
	if _, err := v.VerifyArtifact(t.Context(), make([]byte, 5<<20), strings.NewReader("")); !errors.Is(err, provenance.ErrFormat) {
		t.Errorf("5 MiB: got %v", err)
	}
	long := []byte(`{"` + strings.Repeat("x\u202e", 1<<18) + `": 1}`)
	if _, err := v.VerifyArtifact(t.Context(), long, strings.NewReader("")); !errors.Is(err, provenance.ErrFormat) || len(err.Error()) > 1000 {
		t.Errorf("a long name: got an error of %d bytes", len(err.Error()))
	}
	for _, d := range []digest.Digest{"", "sha256:00", "md5:d41d8cd98f00b204e9800998ecf8427e"} {
		if _, err := v.VerifyDigest(t.Context(), []byte("{}"), d); err == nil {
			t.Errorf("%q: accepted", d)
		}
	}
	b, err := sign(t, newInstance(t).options(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(ctx, b); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context was cancelled", err)
	}
}

// FuzzVerifier feeds bundles of every version to a verifier with a root and a
// key. Nothing that it finds is signed by either.
func FuzzVerifier(f *testing.F) {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	i := newInstance(f)
	v, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{i.trustedRoot(f, i.authorities())}, Keys: []crypto.PublicKey{key.Public()}})
	if err != nil {
		f.Fatal(err)
	}
	stranger := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	f.Add(must(must(provenance.KeySigner(stranger)).Sign(f.Context(), provenance.PayloadType, []byte(statement))).Bytes())
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle+json;version=0.1","verificationMaterial":{"publicKey":{"hint":""},"tlogEntries":[{"logIndex":"1"}]},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"AA=="},"signature":"AA=="}}`))
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"certificate":{"rawBytes":"AA=="},"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"AA=="}]}},"dsseEnvelope":{"payload":"AA==","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if got, err := v.VerifyArtifact(t.Context(), text, strings.NewReader("model")); err == nil {
			t.Fatalf("proved %+v", got)
		}
		b, err := provenance.ParseBundle(text)
		if err != nil {
			return
		}
		if got, err := v.Verify(t.Context(), b); err == nil {
			t.Fatalf("proved %+v", got)
		}
	})
}
