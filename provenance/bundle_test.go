// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/vectors"
	"github.com/modelsec/modelsec-go/provenance"
)

func TestPAEIsThatOfTheSpecification(t *testing.T) {
	// The one test vector of the DSSE protocol document.
	got := string(provenance.PAE("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSignedBundleHasTheFormThatCosignReads(t *testing.T) {
	key := newKey(t)
	b := sign(t, key, cosignStatement())
	var doc map[string]any
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	id := must[string](t)(provenance.KeyID(key.Public()))
	hint := doc["verificationMaterial"].(map[string]any)["publicKey"].(map[string]any)["hint"].(string)
	if raw, err := base64.StdEncoding.DecodeString(hint); err != nil || len(raw) != 32 || !strings.HasPrefix(id, hexOf(raw[:8])) {
		t.Errorf("hint %q is not the base64 of key id %s", hint, id)
	}
	envelope := doc["dsseEnvelope"].(map[string]any)
	if len(doc) != 3 || len(envelope) != 3 || len(envelope["signatures"].([]any)) != 1 {
		t.Errorf("got %s", b.Bytes())
	}
	if doc["mediaType"] != provenance.BundleMediaType || envelope["payloadType"] != provenance.PayloadType {
		t.Errorf("got %s", b.Bytes())
	}
	out, err := json.Marshal(b)
	if err != nil || !bytes.Equal(out, b.Bytes()) {
		t.Errorf("MarshalJSON changed the bundle: %s, %v", out, err)
	}
	again := must[*provenance.Bundle](t)(provenance.ParseBundle(out))
	if !bytes.Equal(again.Envelope().Payload, b.Envelope().Payload) || again.Material().KeyHint != hint {
		t.Error("the bundle reads differently when it is read again")
	}
	if _, err := json.Marshal(&provenance.Bundle{}); err == nil {
		t.Error("an empty bundle has a JSON form")
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s strings.Builder
	for _, c := range b {
		s.WriteByte(digits[c>>4])
		s.WriteByte(digits[c&15])
	}
	return s.String()
}

const validBundle = `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",` +
	`"verificationMaterial":{"publicKey":{"hint":"aGludA=="}},` +
	`"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"c2ln"}]}}`

// toleratedEdits and refusedEdits change validBundle in one place.
var toleratedEdits = map[string][2]string{
	"unknown members":        {`"dsseEnvelope"`, `"later":{"x":[1]},"dsseEnvelope"`},
	"the older media type":   {`sigstore.bundle.v0.3+json`, `sigstore.bundle+json;version=0.3`},
	"version 0.2":            {`sigstore.bundle.v0.3+json`, `sigstore.bundle+json;version=0.2`},
	"version 0.1":            {`sigstore.bundle.v0.3+json`, `sigstore.bundle+json;version=0.1`},
	"a key id":               {`{"sig":`, `{"keyid":"k","sig":`},
	"a null key id":          {`{"sig":`, `{"keyid":null,"sig":`},
	"a raw public key":       {`"hint":"aGludA=="`, `"rawBytes":"AAAA","keyDetails":"PKIX_ECDSA_P256_SHA_256"`},
	"a certificate":          {`"publicKey":{"hint":"aGludA=="}`, `"certificate":{"rawBytes":"AAAA"}`},
	"a certificate chain":    {`"publicKey":{"hint":"aGludA=="}`, `"x509CertificateChain":{"certificates":[{"rawBytes":"AAAA"},{"rawBytes":"BBBB"}]}`},
	"log entries, timestamp": {`"publicKey"`, `"tlogEntries":[{"logIndex":"1"}],"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"AAAA"}]},"publicKey"`},
}

var refusedEdits = map[string][2]string{
	"a repeated member":             {`"payload":"e30="`, `"payload":"e30=","payload":"e30="`},
	"a member in another case":      {`"payload":`, `"Payload":`},
	"another version":               {`v0.3+json`, `v0.4+json`},
	"a later version, spelled so":   {`sigstore.bundle.v0.3+json`, `sigstore.bundle+json;version=0.4`},
	"no signature":                  {`[{"sig":"c2ln"}]`, `[]`},
	"two signatures":                {`[{"sig":"c2ln"}]`, `[{"sig":"c2ln"},{"sig":"c2ln"}]`},
	"an empty signature":            {`"c2ln"`, `""`},
	"an empty payload":              {`"e30="`, `""`},
	"base64 without padding":        {`"e30="`, `"e30"`},
	"base64 with stray bits":        {`"e30="`, `"e31="`},
	"base64 with a line break":      {`"e30="`, `"e3\n0="`},
	"base64 of URLs":                {`"c2ln"`, `"__-_"`},
	"no material":                   {`"verificationMaterial"`, `"other"`},
	"null material":                 {`{"publicKey":{"hint":"aGludA=="}}`, `null`},
	"material of no kind":           {`"publicKey"`, `"secretKey"`},
	"material of two kinds":         {`"publicKey"`, `"certificate":{"rawBytes":"AAAA"},"publicKey"`},
	"an empty certificate":          {`"publicKey":{"hint":"aGludA=="}`, `"certificate":{"rawBytes":""}`},
	"an empty chain":                {`"publicKey":{"hint":"aGludA=="}`, `"x509CertificateChain":{"certificates":[]}`},
	"a message signature beside":    {`"dsseEnvelope"`, `"messageSignature":{"signature":"AAAA"},"dsseEnvelope"`},
	"a message signature instead":   {`"dsseEnvelope"`, `"messageSignature"`},
	"no envelope":                   {`"dsseEnvelope"`, `"other"`},
	"too many log entries":          {`"publicKey"`, `"tlogEntries":[` + strings.Repeat(`{},`, provenance.MaxLogEntries) + `{}],"publicKey"`},
	"too many timestamps":           {`"publicKey"`, `"timestampVerificationData":{"rfc3161Timestamps":[` + strings.Repeat(`{"signedTimestamp":"AAAA"},`, provenance.MaxTimestamps) + `{"signedTimestamp":"AAAA"}]},"publicKey"`},
	"too long a chain":              {`"publicKey":{"hint":"aGludA=="}`, `"x509CertificateChain":{"certificates":[` + strings.Repeat(`{"rawBytes":"AAAA"},`, 16) + `{"rawBytes":"AAAA"}]}`},
	"nesting without end":           {`"dsseEnvelope"`, `"x":` + strings.Repeat("[", 1<<16) + strings.Repeat("]", 1<<16) + `,"dsseEnvelope"`},
	"more bytes than a bundle has":  {`"dsseEnvelope"`, `"x":"` + strings.Repeat("x", provenance.MaxBundle) + `","dsseEnvelope"`},
	"data after the document":       {`}]}}`, `}]}}{}`},
	"the wrong type of a signature": {`{"sig":"c2ln"}`, `"c2ln"`},
}

func TestParseBundleToleratesWhatOthersAdd(t *testing.T) {
	for name, edit := range toleratedEdits {
		in := strings.Replace(validBundle, edit[0], edit[1], 1)
		b, err := provenance.ParseBundle([]byte(in))
		if err != nil || in == validBundle {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(b.Bytes()) != in {
			t.Errorf("%s: not carried unmodified", name)
		}
	}
}

func TestParseBundleRefuses(t *testing.T) {
	for name, edit := range refusedEdits {
		in := strings.Replace(validBundle, edit[0], edit[1], 1)
		if _, err := provenance.ParseBundle([]byte(in)); !errors.Is(err, provenance.ErrFormat) || in == validBundle {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

// TestParseBundleReadsPublishedBundles tries bundles that others made: those
// with a DSSE envelope of version 0.3 parse, and a statement is found in them.
func TestParseBundleReadsPublishedBundles(t *testing.T) {
	statements := 0
	for set, most := range map[string]int{"github-attestations": 10, "sigstore-conformance": 100, "oms": 100} {
		seen := 0
		err := filepath.WalkDir(vectors.Dir(t, set), func(path string, d fs.DirEntry, err error) error {
			name := d.Name()
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".sigstore.json") && name != "model.sig" {
				return err
			}
			seen++
			in := must[[]byte](t)(os.ReadFile(path))
			b, err := provenance.ParseBundle(in)
			if err != nil {
				if !errors.Is(err, provenance.ErrFormat) {
					t.Errorf("%s: %v does not wrap ErrFormat", path, err)
				}
				return nil
			}
			if !bytes.Equal(b.Bytes(), in) {
				t.Errorf("%s: not carried unmodified", path)
			}
			if _, err := b.Statement(); err == nil {
				statements++
			}
			return nil
		})
		if err != nil || seen == 0 || seen > most {
			t.Errorf("%s: %d bundles, %v", set, seen, err)
		}
	}
	if statements < 10 {
		t.Errorf("a statement in %d bundles, want at least 10", statements)
	}
}

// TestKeyVerifierProvesPublishedBundles that another implementation signed.
func TestKeyVerifierProvesPublishedBundles(t *testing.T) {
	dir := filepath.Join(vectors.Dir(t, "oms"), "model-transparency")
	text := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "keys", "signing-key-pub.pem")))
	// The tool that wrote the key describes it in front of the PEM block.
	pub, err := provenance.ParsePublicKey(text[bytes.Index(text, []byte("-----BEGIN")):])
	if err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"v0.3.1", "v1.0.0", "v1.0.1", "v1.1.0"} {
		in := must[[]byte](t)(os.ReadFile(filepath.Join(dir, version+"-elliptic-key", "model.sig")))
		b, err := provenance.ParseBundle(in)
		if err != nil {
			t.Errorf("%s: %v", version, err)
			continue
		}
		if v, err := provenance.KeyVerifier(pub).Verify(t.Context(), b); err != nil || len(v.Subjects) != 1 {
			t.Errorf("%s: got %+v, %v", version, v, err)
		}
		if _, err := provenance.KeyVerifier(newKey(t).Public()).Verify(t.Context(), b); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: with another key: got %v, want ErrSignature", version, err)
		}
	}
}
