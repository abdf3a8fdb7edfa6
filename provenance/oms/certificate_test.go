// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// authority is a root, an intermediate and a key under it.
type authority struct {
	root, between, leaf *x509.Certificate
	key                 *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, curve elliptic.Curve, change func(leaf *x509.Certificate)) authority {
	t.Helper()
	issue := func(name string, change func(*x509.Certificate), parent *x509.Certificate, parentKey crypto.Signer, curve elliptic.Curve) (*x509.Certificate, *ecdsa.PrivateKey) {
		key := newKey(t, curve)
		c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: signedAt.AddDate(-1, 0, 0), NotAfter: signedAt.AddDate(1, 0, 0)}
		change(c)
		if parent == nil {
			parent, parentKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), parentKey)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return out, key
	}
	ca := func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	}
	root, rootKey := issue("root", ca, nil, nil, elliptic.P256())
	between, betweenKey := issue("between", ca, root, rootKey, elliptic.P256())
	leaf, key := issue("leaf", change, between, betweenKey, curve)
	return authority{root, between, leaf, key}
}

func forCode(c *x509.Certificate) {
	c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
}

func TestCertificateVerifiesWithEveryCurve(t *testing.T) {
	for _, curve := range curves {
		a := newAuthority(t, curve, forCode)
		s, err := oms.CertificateSigner(a.key, a.leaf, a.between)
		if err != nil {
			t.Fatal(err)
		}
		b := sign(t, s, model(), ignoreCache)
		roots := x509.NewCertPool()
		roots.AddCert(a.root)
		if _, err := oms.Verify(t.Context(), oms.CertificateVerifier(roots, signedAt), b, model(), nil); err != nil {
			t.Errorf("%s: %v", curve.Params().Name, err)
		}
		others := x509.NewCertPool()
		others.AddCert(newAuthority(t, curve, forCode).root)
		if _, err := oms.Verify(t.Context(), oms.CertificateVerifier(others, signedAt), b, model(), nil); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: another root of that name: got %v", curve.Params().Name, err)
		}
		// A chain proves nothing about what its leaf did not sign.
		other := sign(t, keySigner(t, newKey(t, curve)), model(), ignoreCache)
		text := strings.Replace(string(b.Bytes()), signature(t, b), signature(t, other), 1)
		if _, err := oms.Verify(t.Context(), oms.CertificateVerifier(roots, signedAt), parse(t, []byte(text)), model(), nil); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: another signature: got %v", curve.Params().Name, err)
		}
	}
}

// signature is that of a bundle, as its text has it.
func signature(t *testing.T, b *provenance.Bundle) string {
	t.Helper()
	_, rest, ok := strings.Cut(string(b.Bytes()), `"sig":"`)
	sig, _, _ := strings.Cut(rest, `"`)
	if !ok || sig == "" {
		t.Fatalf("no signature in %s", b.Bytes())
	}
	return sig
}

// TestCertificateForOtherUsesIsRefused: the authority that issues certificates
// for code issues those of web servers too.
func TestCertificateForOtherUsesIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		ok     bool
	}{
		"for code":          {forCode, true},
		"for anything":      {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }, true},
		"for code by name":  {func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} }, true},
		"without any usage": {func(*x509.Certificate) {}, false},
		"for encryption":    {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }, false},
		"for a web server":  {func(c *x509.Certificate) { forCode(c); c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, false},
		"for other keys":    {func(c *x509.Certificate) { forCode(c); c.KeyUsage = x509.KeyUsageCertSign }, false},
	} {
		a := newAuthority(t, elliptic.P256(), c.change)
		// Sign without our checks, as an attacker with such a certificate would.
		chain := []*x509.Certificate{a.leaf, a.between}
		b := withChain(t, sign(t, keySigner(t, a.key), model(), ignoreCache), chain)
		roots := x509.NewCertPool()
		roots.AddCert(a.root)
		_, err := oms.Verify(t.Context(), oms.CertificateVerifier(roots, signedAt), b, model(), nil)
		if c.ok != (err == nil) || err != nil && !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSignersRefuseKeysAndChainsThatNobodyReads(t *testing.T) {
	a, other := newAuthority(t, elliptic.P384(), forCode), newAuthority(t, elliptic.P384(), forCode)
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	usage := newAuthority(t, elliptic.P256(), func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment })
	for name, sign := range map[string]func() (provenance.Signer, error){
		"no key":              func() (provenance.Signer, error) { return oms.KeySigner(nil) },
		"Ed25519":             func() (provenance.Signer, error) { return oms.KeySigner(edwards) },
		"P-224":               func() (provenance.Signer, error) { return oms.KeySigner(newKey(t, elliptic.P224())) },
		"no certificate":      func() (provenance.Signer, error) { return oms.CertificateSigner(a.key) },
		"another certificate": func() (provenance.Signer, error) { return oms.CertificateSigner(a.key, other.leaf) },
		"another chain":       func() (provenance.Signer, error) { return oms.CertificateSigner(a.key, a.leaf, other.between) },
		"another usage":       func() (provenance.Signer, error) { return oms.CertificateSigner(usage.key, usage.leaf) },
	} {
		if _, err := sign(); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
