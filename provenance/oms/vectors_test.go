// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/internal/vectors"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// published are the vectors of the reference implementation and the
// specification. Those of the method "sigstore" are tried by provenance/sigstore.
type published struct{ dir string }

func newPublished(t *testing.T) published { return published{vectors.Dir(t, "oms")} }

func (p published) signed(name string) string {
	return filepath.Join(p.dir, "model-transparency", name)
}

func (p published) spec(name string) string {
	return filepath.Join(p.dir, "spec", "test-vectors", "v1.0", name+".bundle.json")
}

func (p published) key(t *testing.T) crypto.PublicKey {
	t.Helper()
	block, _ := pem.Decode(read(t, filepath.Join(p.dir, "model-transparency", "keys", "signing-key-pub.pem")))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (p published) roots(t *testing.T, names ...string) *x509.CertPool {
	t.Helper()
	roots := x509.NewCertPool()
	for _, name := range names {
		if !roots.AppendCertsFromPEM(read(t, filepath.Join(p.dir, "model-transparency", "keys", name))) {
			t.Fatalf("%s holds no certificate", name)
		}
	}
	return roots
}

// signedAt is within the validity of the published certificates.
var signedAt = time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC)

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, text []byte) *provenance.Bundle {
	t.Helper()
	b, err := provenance.ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPublishedSignaturesVerify(t *testing.T) {
	p := newPublished(t)
	key, certificate := provenance.KeyVerifier(p.key(t)), oms.CertificateVerifier(p.roots(t, "ca-cert.pem"), signedAt)
	for _, c := range []struct {
		name, bundle, model string
		verifier            provenance.Verifier
		options             oms.VerifyOptions
	}{
		{"v0.3.1-elliptic-key", "", "", key, oms.VerifyOptions{File: "signme-1"}},
		{"v1.0.0-elliptic-key", "", "", key, oms.VerifyOptions{File: "signme-1"}},
		{"v1.0.1-elliptic-key", "", "", key, oms.VerifyOptions{IgnorePaths: []string{"ignore-me"}}},
		{"v1.1.0-elliptic-key", "", "", key, oms.VerifyOptions{}},
		{"v0.3.1-certificate", "", "", certificate, oms.VerifyOptions{}},
		{"v1.0.0-certificate", "", "", certificate, oms.VerifyOptions{}},
		{"v1.0.1-certificate", "", "", certificate, oms.VerifyOptions{IgnorePaths: []string{"ignore-me"}}},
		{"v1.1.0-certificate", "", "", certificate, oms.VerifyOptions{}},
		// The bundles of the specification come without a model: theirs is this one.
		{"specification, key", p.spec("valid/key"), "v1.1.0-elliptic-key", key, oms.VerifyOptions{}},
		{"specification, certificate", p.spec("valid/certificate"), "v1.1.0-elliptic-key", certificate, oms.VerifyOptions{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.model == "" {
				c.bundle, c.model = filepath.Join(p.signed(c.name), oms.SignatureFile), c.name
			}
			b := parse(t, read(t, c.bundle))
			result, err := oms.Verify(t.Context(), c.verifier, b, os.DirFS(p.signed(c.model)), &c.options)
			if err != nil {
				t.Fatal(err)
			}
			if c.options.File == "" && !slices.Contains(result.Unsigned, oms.SignatureFile) {
				t.Errorf("unsigned %q, want the signature among them", result.Unsigned)
			}
			for _, r := range result.Manifest.Resources {
				changed := mapOf(t, p.signed(c.model))
				path := r.Path
				if c.options.File != "" {
					path = c.options.File
				}
				changed[path].Data = append(changed[path].Data, 0)
				var mismatch *oms.MismatchError
				_, err := oms.Verify(t.Context(), c.verifier, b, changed, &c.options)
				if !errors.As(err, &mismatch) || !slices.Equal(mismatch.Changed, []string{path}) {
					t.Errorf("%s with a byte more: got %v, want it as changed", path, err)
				}
			}
		})
	}
}

func TestPublishedSignaturesAreRefused(t *testing.T) {
	p := newPublished(t)
	key, certificate := provenance.KeyVerifier(p.key(t)), oms.CertificateVerifier(p.roots(t, "ca-cert.pem"), signedAt)
	for _, c := range []struct {
		name, bundle, model string
		verifier            provenance.Verifier
		options             oms.VerifyOptions
		want                string
	}{
		{"empty", p.spec("invalid/empty"), "v1.1.0-elliptic-key", key, oms.VerifyOptions{}, "bundle"},
		{"no envelope", p.spec("invalid/missing-envelope"), "v1.1.0-elliptic-key", key, oms.VerifyOptions{}, "no dsseEnvelope"},
		{"no log entries", p.spec("invalid/missing-tlog-entries"), "v1.1.0-sigstore", key, oms.VerifyOptions{}, "without a log entry"},
		{"no material", p.spec("invalid/missing-verification-material"), "v1.1.0-elliptic-key", key, oms.VerifyOptions{}, "no verificationMaterial"},
		{"wrong predicate", p.spec("invalid-payload/wrong-predicate"), "v1.1.0-elliptic-key", key, oms.VerifyOptions{}, "signature not verified"},
		{"v0.2.0 signs another encoding", "", "v0.2.0-certificate", certificate, oms.VerifyOptions{}, "signature not verified"},
		{"unsigned file", "", "v1.0.1-elliptic-key", key, oms.VerifyOptions{}, `1 not signed: "ignore-me"`},
		{"single file as a directory", "", "v1.0.0-elliptic-key", key, oms.VerifyOptions{}, "of a single file"},
		{"directory as a single file", "", "v1.1.0-elliptic-key", key, oms.VerifyOptions{File: "signme-1"}, `signature is of "signme-2"`},
		{"another file", "", "v1.0.0-elliptic-key", key, oms.VerifyOptions{File: oms.SignatureFile}, "1 changed"},
		{"files of another signature", p.spec("valid/key"), "v1.1.0-certificate", key, oms.VerifyOptions{}, `1 changed: "signme-1"`},
		{"a key where there is a certificate", "", "v1.1.0-elliptic-key", certificate, oms.VerifyOptions{}, "no certificate chain"},
		{"roots that are not the root", "", "v1.1.0-certificate", oms.CertificateVerifier(x509.NewCertPool(), signedAt), oms.VerifyOptions{}, "unknown authority"},
		{"no roots", "", "v1.1.0-certificate", oms.CertificateVerifier(nil, signedAt), oms.VerifyOptions{}, "no roots"},
		{"after the certificate has ended", "", "v1.1.0-certificate", oms.CertificateVerifier(p.roots(t, "ca-cert.pem"), signedAt.AddDate(30, 0, 0)), oms.VerifyOptions{}, "expired"},
		{"before the certificate began", "", "v1.1.0-certificate", oms.CertificateVerifier(p.roots(t, "ca-cert.pem"), signedAt.AddDate(-1, 0, 0)), oms.VerifyOptions{}, "not yet valid"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.bundle == "" {
				c.bundle = filepath.Join(p.signed(c.model), oms.SignatureFile)
			}
			b, err := provenance.ParseBundle(read(t, c.bundle))
			if err == nil {
				_, err = oms.Verify(t.Context(), c.verifier, b, os.DirFS(p.signed(c.model)), &c.options)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestWrongPredicateIsRefusedByItself: the published bundle has no valid
// signature either, so its statement is tried alone.
func TestWrongPredicateIsRefusedByItself(t *testing.T) {
	b := parse(t, read(t, newPublished(t).spec("invalid-payload/wrong-predicate")))
	const want = `predicate type "https://example.com/wrong-predicate/v1.0"`
	if _, err := oms.ParseManifest(b.Envelope().Payload); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}
