// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// BundleMediaType is the media type of a Sigstore bundle, of the layer that
// holds it, and the artifact type of its manifest (FORMAT.md §9).
const BundleMediaType = "application/vnd.dev.sigstore.bundle.v0.3+json"

// bundleMediaTypesOld are those of versions 0.1 and 0.2, which GitHub and npm wrote
// before, and how the first tools to write version 0.3 spelled it. What this
// package reads is the same in all of them.
var bundleMediaTypesOld = []string{
	"application/vnd.dev.sigstore.bundle+json;version=0.1",
	"application/vnd.dev.sigstore.bundle+json;version=0.2",
	"application/vnd.dev.sigstore.bundle+json;version=0.3",
}

// Bundle is a Sigstore bundle that holds a DSSE envelope. It does not change:
// what was parsed is what is verified and what is written again, byte for byte.
type Bundle struct {
	raw      []byte
	envelope Envelope
	material Material
}

// Material is what a bundle brings along to be verified with. None of it is
// proven, and none of it may choose how the bundle is verified. A bundle has a
// key hint, a certificate or a chain, and never two of them.
type Material struct {
	// KeyHint hints at the public key. Tools disagree on its form; cosign and
	// this package write the base64 of the SHA-256 of the key's DER
	// SubjectPublicKeyInfo. It is empty where there is a certificate, and may be
	// where there is none.
	KeyHint string
	// Certificate is the DER of the leaf certificate.
	Certificate []byte
	// Chain is a certificate chain in DER, leaf first. Bundles of version 0.3
	// should not have one; OpenSSF Model Signing writes them all the same.
	Chain [][]byte
	// LogEntries are transparency log entries, as the JSON found in the bundle.
	LogEntries []json.RawMessage
	// Timestamps are RFC 3161 signed timestamps in DER.
	Timestamps [][]byte
}

// The JSON form of protobuf-specs' dev.sigstore.bundle.v1.Bundle. Members that
// are not named here are of no use to this package and are carried in raw.
type bundleDocument struct {
	MediaType            string            `json:"mediaType"`
	VerificationMaterial *materialDocument `json:"verificationMaterial"`
	MessageSignature     json.RawMessage   `json:"messageSignature,omitempty"`
	DSSEEnvelope         *envelopeDocument `json:"dsseEnvelope"`
}

type materialDocument struct {
	PublicKey                 *publicKeyDocument   `json:"publicKey,omitempty"`
	Certificate               *certificateDocument `json:"certificate,omitempty"`
	X509CertificateChain      *chainDocument       `json:"x509CertificateChain,omitempty"`
	TLogEntries               []json.RawMessage    `json:"tlogEntries,omitempty"`
	TimestampVerificationData *timestampDocument   `json:"timestampVerificationData,omitempty"`
}

type publicKeyDocument struct {
	Hint string `json:"hint,omitempty"`
}

type certificateDocument struct {
	RawBytes string `json:"rawBytes"`
}

type chainDocument struct {
	Certificates []certificateDocument `json:"certificates"`
}

type timestampDocument struct {
	RFC3161Timestamps []struct {
		SignedTimestamp string `json:"signedTimestamp"`
	} `json:"rfc3161Timestamps,omitempty"`
}

type envelopeDocument struct {
	Payload     string              `json:"payload"`
	PayloadType string              `json:"payloadType"`
	Signatures  []signatureDocument `json:"signatures"`
}

// signatureDocument has no keyid: DSSE leaves it unsigned, so nothing here reads
// it and nothing here writes it.
type signatureDocument struct {
	Sig string `json:"sig"`
}

// ParseBundle reads a Sigstore bundle of version 0.1 to 0.3 with a DSSE envelope of
// one signature. Members that it does not know are kept and ignored; a repeated one
// is an error. Nothing is verified.
func ParseBundle(b []byte) (*Bundle, error) {
	var doc bundleDocument
	if err := strictjson.UnmarshalLenient(b, &doc, maxBundle); err != nil {
		return nil, formatError("bundle: %w", err)
	}
	if doc.MediaType != BundleMediaType && !slices.Contains(bundleMediaTypesOld, doc.MediaType) {
		return nil, formatError("bundle of media type %q, want %q", clip(doc.MediaType), BundleMediaType)
	}
	if len(doc.MessageSignature) > 0 && string(doc.MessageSignature) != "null" {
		return nil, formatError("bundle signs the bytes of a file (messageSignature), want a statement (dsseEnvelope)")
	}
	if doc.DSSEEnvelope == nil {
		return nil, formatError("bundle has no dsseEnvelope")
	}
	if doc.VerificationMaterial == nil {
		return nil, formatError("bundle has no verificationMaterial")
	}
	envelope, err := doc.DSSEEnvelope.decode()
	if err != nil {
		return nil, formatError("bundle: dsseEnvelope: %w", err)
	}
	material, err := doc.VerificationMaterial.decode()
	if err != nil {
		return nil, formatError("bundle: verificationMaterial: %w", err)
	}
	return &Bundle{raw: bytes.Clone(b), envelope: envelope, material: material}, nil
}

// keyBundle is the bundle of an envelope that a bare key signed.
func keyBundle(e Envelope, hint string) (*Bundle, error) {
	b, err := json.Marshal(bundleDocument{
		MediaType:            BundleMediaType,
		VerificationMaterial: &materialDocument{PublicKey: &publicKeyDocument{Hint: hint}},
		DSSEEnvelope: &envelopeDocument{
			Payload:     base64.StdEncoding.EncodeToString(e.Payload),
			PayloadType: e.PayloadType,
			Signatures:  []signatureDocument{{Sig: base64.StdEncoding.EncodeToString(e.Signature)}},
		},
	})
	if err != nil {
		return nil, err
	}
	return ParseBundle(b)
}

// Bytes returns the bundle as it was parsed. The caller must not change them.
func (b *Bundle) Bytes() []byte { return b.raw }

// MarshalJSON returns the bundle as it was parsed.
func (b *Bundle) MarshalJSON() ([]byte, error) {
	if b == nil || b.raw == nil {
		return nil, errors.New("empty bundle: make one with ParseBundle or a Signer")
	}
	return b.raw, nil
}

// Envelope returns the signed envelope. The caller must not change its bytes.
func (b *Bundle) Envelope() Envelope { return b.envelope }

// Material returns the verification material. The caller must not change it.
func (b *Bundle) Material() Material { return b.material }

// Statement parses what the envelope claims. Nothing about it is proven before a
// Verifier returned it.
func (b *Bundle) Statement() (Statement, error) {
	if b.envelope.PayloadType != PayloadType {
		return Statement{}, formatError("payload type %q, want %q", clip(b.envelope.PayloadType), PayloadType)
	}
	s, _, err := DecodeStatement(b.envelope.Payload, nil)
	return s, err
}

func (d *envelopeDocument) decode() (Envelope, error) {
	// With two signatures, which one was verified is a matter of taste (RULES K40).
	if len(d.Signatures) != 1 {
		return Envelope{}, fmt.Errorf("%d signatures, want exactly 1", len(d.Signatures))
	}
	payload, err := decodeBase64("payload", d.Payload)
	if err != nil {
		return Envelope{}, err
	}
	signature, err := decodeBase64("signature", d.Signatures[0].Sig)
	if err != nil {
		return Envelope{}, err
	}
	return Envelope{PayloadType: d.PayloadType, Payload: payload, Signature: signature}, nil
}

func (d *materialDocument) decode() (Material, error) {
	var m Material
	kinds := 0
	if d.PublicKey != nil {
		kinds++
		m.KeyHint = d.PublicKey.Hint
	}
	if d.Certificate != nil {
		kinds++
		der, err := decodeBase64("certificate", d.Certificate.RawBytes)
		if err != nil {
			return Material{}, err
		}
		m.Certificate = der
	}
	if d.X509CertificateChain != nil {
		kinds++
		n := len(d.X509CertificateChain.Certificates)
		if n == 0 || n > maxCertificates {
			return Material{}, fmt.Errorf("%d certificates in a chain, want 1 to %d", n, maxCertificates)
		}
		for i, c := range d.X509CertificateChain.Certificates {
			der, err := decodeBase64(fmt.Sprintf("certificate %d", i), c.RawBytes)
			if err != nil {
				return Material{}, err
			}
			m.Chain = append(m.Chain, der)
		}
	}
	if kinds != 1 {
		return Material{}, fmt.Errorf("%d of publicKey, certificate and x509CertificateChain, want exactly one", kinds)
	}
	if n := len(d.TLogEntries); n > maxLogEntries {
		return Material{}, fmt.Errorf("%d log entries, limit %d", n, maxLogEntries)
	}
	m.LogEntries = d.TLogEntries
	if d.TimestampVerificationData == nil {
		return m, nil
	}
	if n := len(d.TimestampVerificationData.RFC3161Timestamps); n > maxTimestamps {
		return Material{}, fmt.Errorf("%d timestamps, limit %d", n, maxTimestamps)
	}
	for i, t := range d.TimestampVerificationData.RFC3161Timestamps {
		der, err := decodeBase64(fmt.Sprintf("timestamp %d", i), t.SignedTimestamp)
		if err != nil {
			return Material{}, err
		}
		m.Timestamps = append(m.Timestamps, der)
	}
	return m, nil
}

// decodeBase64 takes the one standard spelling of some bytes. encoding/json
// would also skip line breaks and stray bits.
func decodeBase64(what, s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || base64.StdEncoding.EncodedLen(len(b)) != len(s) {
		return nil, fmt.Errorf("%s is not standard base64", what)
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("%s is empty", what)
	}
	return b, nil
}
