// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
)

// Annotations as cosign 2 writes them; what is encoded in them is short.
const (
	certificateKey = "dev.sigstore.cosign/certificate"
	logEntryKey    = "dev.sigstore.cosign/bundle"

	cosignPEM = "-----BEGIN CERTIFICATE-----\nAAEC\n-----END CERTIFICATE-----\n"
	// The body is {"apiVersion":"0.0.1","kind":"dsse"}.
	cosignEntry = `{"SignedEntryTimestamp":"AAEC","Payload":{"body":"eyJhcGlWZXJzaW9uIjoiMC4wLjEiLCJraW5kIjoiZHNzZSJ9","integratedTime":1700000000,"logIndex":7,"logID":"c0ffee"}}`
)

func cosignAnnotations() map[string]string {
	return map[string]string{"dev.cosignproject.cosign/signature": "", "dev.sigstore.cosign/chain": cosignPEM,
		"dev.sigstore.cosign/rfc3161timestamp": `{"SignedRFC3161Timestamp":"AAEC"}`, certificateKey: cosignPEM, logEntryKey: cosignEntry}
}

// cosignEnvelope is the content of the layer.
func cosignEnvelope(t testing.TB, b *provenance.Bundle) []byte {
	t.Helper()
	var doc struct {
		DSSEEnvelope json.RawMessage `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.DSSEEnvelope
}

func TestCosignLayerBecomesABundle(t *testing.T) {
	key := newKey(t)
	signer := must[provenance.Signer](t)(provenance.KeySigner(key))
	signed := must[*provenance.Bundle](t)(signer.Sign(t.Context(), provenance.PayloadType, must[[]byte](t)(cosignStatement().Encode(manifest))))

	b := must[*provenance.Bundle](t)(provenance.ParseCosignLayer(cosignEnvelope(t, signed), map[string]string{"dev.cosignproject.cosign/signature": ""}))
	got, err := provenance.KeyVerifier(newKey(t).Public(), key.Public()).Verify(t.Context(), b)
	if err != nil || got.Signer.Key != publicPEM(t, key.Public()) || got.Subjects[0] != manifest {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := provenance.KeyVerifier(newKey(t).Public()).Verify(t.Context(), b); !errors.Is(err, provenance.ErrSignature) {
		t.Errorf("by another key: got %v", err)
	}

	b = must[*provenance.Bundle](t)(provenance.ParseCosignLayer(cosignEnvelope(t, signed), cosignAnnotations()))
	m := b.Material()
	want := `{"logIndex":"7","logId":{"keyId":"wP/u"},"kindVersion":{"kind":"dsse","version":"0.0.1"},"integratedTime":"1700000000",` +
		`"inclusionPromise":{"signedEntryTimestamp":"AAEC"},"canonicalizedBody":"eyJhcGlWZXJzaW9uIjoiMC4wLjEiLCJraW5kIjoiZHNzZSJ9"}`
	if len(m.LogEntries) != 1 || string(m.LogEntries[0]) != want || !bytes.Equal(m.Certificate, []byte{0, 1, 2}) ||
		m.Timestamps != nil || m.Chain != nil {
		t.Errorf("got %+v, want a log entry %s", m, want)
	}
}

// TestCosignLayerRefuses what does not say one well-formed thing: none of it may
// be left out in silence, or a certificate would turn into a key.
func TestCosignLayerRefuses(t *testing.T) {
	const envelope = `{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"","sig":"AAEC"}]}`
	if _, err := provenance.ParseCosignLayer([]byte(envelope), cosignAnnotations()); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string][3]string{
		"no envelope":                  {"", envelope, ""},
		"two signatures":               {"", `"sig":"AAEC"}`, `"sig":"AAEC"},{"sig":"AAEC"}`},
		"no signature":                 {"", `{"keyid":"","sig":"AAEC"}`, ``},
		"a repeated payload":           {"", `"payload":`, `"payload":"e30=","payload":`},
		"a certificate that is none":   {certificateKey, "CERTIFICATE", "PUBLIC KEY"},
		"two certificates":             {certificateKey, cosignPEM, cosignPEM + cosignPEM},
		"a certificate without PEM":    {certificateKey, cosignPEM, "AAEC"},
		"a log entry that is none":     {logEntryKey, cosignEntry, "null "},
		"a log id in base64":           {logEntryKey, "c0ffee", "wP/u"},
		"an entry without a promise":   {logEntryKey, `"SignedEntryTimestamp":"AAEC"`, `"SignedEntryTimestamp":""`},
		"an entry without a body":      {logEntryKey, "eyJhcGlWZXJzaW9uIjoiMC4wLjEiLCJraW5kIjoiZHNzZSJ9", ""},
		"an entry with a body of junk": {logEntryKey, "eyJhcGlWZXJzaW9uIjoiMC4wLjEiLCJraW5kIjoiZHNzZSJ9", "AAEC"},
		"a repeated time":              {logEntryKey, `"logIndex"`, `"integratedTime":1,"logIndex"`},
		"an index that is no number":   {logEntryKey, `"logIndex":7`, `"logIndex":7.5`},
	} {
		t.Run(name, func(t *testing.T) {
			content, annotations := envelope, cosignAnnotations()
			if edit[0] == "" {
				content = strings.Replace(content, edit[1], edit[2], 1)
			} else {
				annotations[edit[0]] = strings.Replace(annotations[edit[0]], edit[1], edit[2], 1)
			}
			if b, err := provenance.ParseCosignLayer([]byte(content), annotations); !errors.Is(err, provenance.ErrFormat) {
				t.Errorf("got %v, %v, want ErrFormat", b, err)
			}
		})
	}
}

// FuzzParseCosignLayer: what is accepted is a bundle that is read again.
func FuzzParseCosignLayer(f *testing.F) {
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"sig":"AAEC"}]}`), cosignPEM, cosignEntry)
	f.Add([]byte(`{"payloadType":"","payload":"e30=","signatures":[{"sig":"AAEC"}]}`), "", "")
	f.Fuzz(func(t *testing.T, envelope []byte, certificate, entry string) {
		b, err := provenance.ParseCosignLayer(envelope, map[string]string{certificateKey: certificate, logEntryKey: entry})
		if err != nil {
			return
		}
		if _, err := provenance.ParseBundle(b.Bytes()); err != nil {
			t.Fatal(err)
		}
		if m := b.Material(); (len(m.Certificate) > 0) != (certificate != "") || (len(m.LogEntries) > 0) != (entry != "") {
			t.Fatalf("%q, %q became %+v", certificate, entry, m)
		}
	})
}
