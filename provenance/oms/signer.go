// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/modelsec/modelsec-go/provenance"
)

// KeySigner returns a Signer for the method "key": ECDSA P-256, P-384 or P-521,
// each with the hash of its size. Readers need the public key; nothing proves
// when it signed. The Signer may be called concurrently if the key may.
func KeySigner(key crypto.Signer) (provenance.Signer, error) {
	inner, err := ecdsaSigner(key)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	// The reference implementation refuses other hints than this.
	hint := sha256.Sum256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return &signer{inner, materialDocument{PublicKey: &publicKeyDocument{hex.EncodeToString(hint[:])}}}, nil
}

// CertificateSigner returns a Signer for the method "certificate". chain is the
// certificate of the key and those that lead from it towards a root, which
// readers bring themselves. Keys are those of KeySigner.
func CertificateSigner(key crypto.Signer, chain ...*x509.Certificate) (provenance.Signer, error) {
	inner, err := ecdsaSigner(key)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		return nil, errors.New("no certificate to sign with")
	}
	if !key.Public().(*ecdsa.PublicKey).Equal(chain[0].PublicKey) {
		return nil, fmt.Errorf("certificate of %q is for another key", chain[0].Subject)
	}
	if err := maySign(chain[0]); err != nil {
		return nil, err
	}
	doc := &chainDocument{}
	for i, c := range chain {
		if i > 0 {
			if err := chain[i-1].CheckSignatureFrom(c); err != nil {
				return nil, fmt.Errorf("certificate %d is not by the next, %q: %w", i, c.Subject, err)
			}
		}
		doc.Certificates = append(doc.Certificates, certificateDocument{base64.StdEncoding.EncodeToString(c.Raw)})
	}
	return &signer{inner, materialDocument{X509CertificateChain: doc}}, nil
}

// ecdsaSigner refuses what other tools would not read.
func ecdsaSigner(key crypto.Signer) (provenance.Signer, error) {
	if key == nil {
		return nil, errors.New("no key to sign with")
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		return nil, fmt.Errorf("%T: model signing has keys of ECDSA P-256, P-384 and P-521 alone", key.Public())
	}
	return provenance.KeySigner(key)
}

// signer puts an envelope into a bundle of the form that model signing wants.
type signer struct {
	provenance.Signer
	material materialDocument
}

type bundleDocument struct {
	MediaType            string           `json:"mediaType"`
	VerificationMaterial materialDocument `json:"verificationMaterial"`
	DSSEEnvelope         envelopeDocument `json:"dsseEnvelope"`
}

type materialDocument struct {
	PublicKey            *publicKeyDocument `json:"publicKey,omitempty"`
	X509CertificateChain *chainDocument     `json:"x509CertificateChain,omitempty"`
	TLogEntries          [0]struct{}        `json:"tlogEntries"` // the reference implementation wants the member
}

type publicKeyDocument struct {
	Hint string `json:"hint"`
}

type chainDocument struct {
	Certificates []certificateDocument `json:"certificates"`
}

type certificateDocument struct {
	RawBytes string `json:"rawBytes"`
}

type envelopeDocument struct {
	Payload     []byte              `json:"payload"`
	PayloadType string              `json:"payloadType"`
	Signatures  []signatureDocument `json:"signatures"`
}

type signatureDocument struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid"`
}

func (s *signer) Sign(ctx context.Context, payloadType string, payload []byte) (*provenance.Bundle, error) {
	signed, err := s.Signer.Sign(ctx, payloadType, payload)
	if err != nil {
		return nil, err
	}
	e := signed.Envelope()
	text, err := json.Marshal(bundleDocument{provenance.BundleMediaType, s.material,
		envelopeDocument{e.Payload, e.PayloadType, []signatureDocument{{Sig: e.Signature}}}})
	if err != nil {
		return nil, err
	}
	return provenance.ParseBundle(text)
}

// CertificateVerifier returns a Verifier for the method "certificate". It
// believes every certificate that leads to one of the roots, may sign code or
// anything, and is valid at the time given. Zero is the present: nothing proves
// when a model was signed, so a caller who accepts certificates that have ended
// says for when. Nothing is asked about revoked certificates. What it proves is
// a key, that of the leaf. The roots must not change while it is in use.
func CertificateVerifier(roots *x509.CertPool, at time.Time) provenance.Verifier {
	return &certificateVerifier{roots, at}
}

type certificateVerifier struct {
	roots *x509.CertPool
	at    time.Time
}

func (v *certificateVerifier) Verify(ctx context.Context, b *provenance.Bundle) (*provenance.Verified, error) {
	if v.roots == nil {
		return nil, errors.New("no roots to verify with") // x509 would take the system's
	}
	if b == nil || len(b.Material().Chain) == 0 {
		return nil, formatError("no certificate chain")
	}
	var leaf *x509.Certificate
	between := x509.NewCertPool()
	for i, der := range b.Material().Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, formatError("certificate %d: %w", i, err)
		}
		if i == 0 {
			leaf = c
		} else {
			between.AddCert(c)
		}
	}
	if err := maySign(leaf); err != nil {
		return nil, fmt.Errorf("%w: %w", provenance.ErrSignature, err)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: v.roots, Intermediates: between, CurrentTime: v.at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}); err != nil {
		return nil, fmt.Errorf("%w: %.300s", provenance.ErrSignature, err)
	}
	return provenance.KeyVerifier(leaf.PublicKey).Verify(ctx, b)
}

// maySign wants the key usage for signatures, or where there is no key usage the
// extended one for code. That an extended usage is for code where there is one
// is left to the verification of the chain.
func maySign(c *x509.Certificate) error {
	if c.KeyUsage&x509.KeyUsageDigitalSignature != 0 {
		return nil
	}
	for _, u := range c.ExtKeyUsage {
		if c.KeyUsage == 0 && u == x509.ExtKeyUsageCodeSigning {
			return nil
		}
	}
	return fmt.Errorf("certificate of %.100q may not sign: want the key usage for digital signatures", c.Subject)
}
