// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"encoding/json"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
)

// TestVerdictsAgreeWithCosignAndNpm asks three verifiers about the same bundles:
// genuine ones, and some with one part missing or taken from another.
func TestVerdictsAgreeWithCosignAndNpm(t *testing.T) {
	s, cosign, npm := sigstoreStack(t), newTool(t, "cosign-v3"), newNpm(t)
	a, b := s.sign(t, s.issuer.person(person)), s.sign(t, s.issuer.person(person))
	bundles := map[string]*provenance.Bundle{"genuine": a, "genuine too": b}
	for name, path := range map[string][]string{
		"log entry of another": {"verificationMaterial", "tlogEntries"}, "timestamp of another": {"verificationMaterial", "timestampVerificationData"},
		"certificate of another": {"verificationMaterial", "certificate"}, "signature of another": {"dsseEnvelope", "signatures"},
	} {
		bundles[name] = swap(t, a, b, path...)
	}
	for _, member := range []string{"tlogEntries", "timestampVerificationData"} {
		bundles["without "+member] = lacking(t, a, member)
	}
	stranger := s.sign(t, s.issuer.person("x"+person))
	bundles["of somebody else"] = stranger

	v := s.verifier(t)
	artifact := file(t, "empty", nil)
	for name, bundle := range bundles {
		path := file(t, "bundle.json", bundle.Bytes())
		verified, err := v.Verify(t.Context(), bundle)
		ours := err == nil && verified.Signer.Subject == person && verified.Signer.Issuer == s.issuer.people()
		_, err = cosign.run(t, "verify-blob-attestation", "--bundle", path, "--trusted-root", s.rootPath, "--insecure-ignore-sct", "--use-signed-timestamps",
			"--certificate-identity", person, "--certificate-oidc-issuer", s.issuer.people(), "--type", provenance.PredicateCosignSign, artifact)
		theirs := err == nil
		_, npmErr := npm.run(t, path, s.rootPath, s.issuer.people(), person)
		if want := name == "genuine" || name == "genuine too"; ours != want || theirs != want || (npmErr == nil) != want {
			t.Errorf("%s: ours %t, cosign %t, npm %t, want %t\ncosign: %v\nnpm: %v", name, ours, theirs, npmErr == nil, want, err, npmErr)
		}
	}
}

// lacking is a bundle without some of its verification material.
func lacking(t *testing.T, b *provenance.Bundle, member string) *provenance.Bundle {
	t.Helper()
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	doc["verificationMaterial"] = without(t, doc["verificationMaterial"], member)
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	out, err := provenance.ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
