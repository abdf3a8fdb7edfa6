// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/vectors"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// modelSigner signed the published models.
var modelSigner = provenance.Principal{Issuer: "https://sigstore.verify.ibm.com/oauth2", Subject: "stefanb@us.ibm.com"}

// TestPublishedModelSignaturesVerify: the keyless ones of model-signing 0.3.1 to
// 1.1.0 and of the specification. Package oms tries the others.
func TestPublishedModelSignaturesVerify(t *testing.T) {
	dir, v := vectors.Dir(t, "oms"), publicVerifier(t)
	other := modelSigner
	other.Subject = strings.Replace(other.Subject, "stefanb", "stefana", 1)
	for _, c := range []struct{ bundle, model string }{
		{"model-transparency/v0.3.1-sigstore/model.sig", "v0.3.1-sigstore"},
		{"model-transparency/v1.0.0-sigstore/model.sig", "v1.0.0-sigstore"},
		{"model-transparency/v1.0.1-sigstore/model.sig", "v1.0.1-sigstore"},
		{"model-transparency/v1.1.0-sigstore/model.sig", "v1.1.0-sigstore"},
		{"spec/test-vectors/v1.0/valid/sigstore.bundle.json", "v1.1.0-sigstore"},
	} {
		text, err := os.ReadFile(filepath.Join(dir, c.bundle))
		if err != nil {
			t.Fatal(err)
		}
		b, err := provenance.ParseBundle(text)
		if err != nil {
			t.Fatal(err)
		}
		model := os.DirFS(filepath.Join(dir, "model-transparency", c.model))
		o := &oms.VerifyOptions{Signers: []provenance.Principal{modelSigner}}
		if c.model == "v1.0.1-sigstore" { // which does not record what it ignored
			o.IgnorePaths = []string{"ignore-me"}
		}
		if _, err := oms.Verify(t.Context(), v, b, model, o); err != nil {
			t.Errorf("%s: %v", c.bundle, err)
		}
		for name, signers := range map[string][]provenance.Principal{"nobody": nil, "one letter changed": {other}} {
			o.Signers = signers
			if _, err := oms.Verify(t.Context(), v, b, model, o); !errors.Is(err, provenance.ErrSignature) {
				t.Errorf("%s: signer %s: got %v, want ErrSignature", c.bundle, name, err)
			}
		}
	}
}

// TestKeylessModelSignatureWithoutLogIsRefused by the verifier too, and not only
// by package oms.
func TestKeylessModelSignatureWithoutLogIsRefused(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(vectors.Dir(t, "oms"), "spec/test-vectors/v1.0/invalid/missing-tlog-entries.bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := provenance.ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publicVerifier(t).Verify(t.Context(), b); !errors.Is(err, provenance.ErrSignature) && !errors.Is(err, provenance.ErrFormat) {
		t.Errorf("got %v, want a refusal", err)
	}
}
