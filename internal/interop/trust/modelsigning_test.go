// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

// trustConfig is what sigstore-python calls the two documents together. It wants
// a common name of every authority, which Fulcio's lacks, and an issuer even
// where it is given a token.
func (s *stack) trustConfig(t *testing.T) string {
	t.Helper()
	var trusted, config map[string]any
	if err := errors.Join(json.Unmarshal(s.root, &trusted), json.Unmarshal(s.config, &config)); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"certificateAuthorities", "timestampAuthorities"} {
		for _, authority := range trusted[kind].([]any) {
			authority.(map[string]any)["subject"] = map[string]any{"organization": "local", "commonName": kind}
		}
	}
	people := maps.Clone(config["caUrls"].([]any)[0].(map[string]any))
	people["url"] = s.issuer.people()
	config["oidcUrls"] = []any{people}
	text, err := json.Marshal(map[string]any{"mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
		"trustedRoot": trusted, "signingConfig": config})
	if err != nil {
		t.Fatal(err)
	}
	return file(t, "trust_config.json", text)
}

// verifyModel proves a signed directory, and what is near it not.
func (s *stack) verifyModel(t *testing.T, b *provenance.Bundle, dir string) {
	t.Helper()
	signer := provenance.Principal{Issuer: s.issuer.people(), Subject: person}
	v, o := s.verifier(t), &oms.VerifyOptions{Signers: []provenance.Principal{signer}}
	got, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), o)
	if err != nil {
		t.Fatal(err)
	}
	if got.Verified.LogEntries != 1 || got.Verified.SCTs != 1 || len(got.Verified.Times) == 0 {
		t.Errorf("proved %+v", got.Verified)
	}
	o.Signers[0].Subject = "x" + person
	if _, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), o); !errors.Is(err, provenance.ErrSignature) {
		t.Errorf("another signer: got %v, want ErrSignature", err)
	}
	o.Signers[0] = signer
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	var mismatch *oms.MismatchError
	if _, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), o); !errors.As(err, &mismatch) {
		t.Errorf("another model: got %v, want a mismatch", err)
	}
}

// TestKeylessModelSignaturesGoBothWays between model-signing and package oms.
func TestKeylessModelSignaturesGoBothWays(t *testing.T) {
	s, python := sigstoreStack(t), newTool(t, "model_signing")
	trust := s.trustConfig(t)
	t.Run("ours", func(t *testing.T) {
		dir := model(t)
		signer, err := sigstore.NewSigner(s.signerOptions(s.issuer.person(person)))
		if err != nil {
			t.Fatal(err)
		}
		// The first entry of a log has index 0, which JSON of protobuf leaves out and
		// sigstore-python misses.
		s.sign(t, s.issuer.person(person))
		b, err := oms.Sign(t.Context(), signer, os.DirFS(dir), "model", nil)
		if err != nil {
			t.Fatal(err)
		}
		sig := filepath.Join(dir, oms.SignatureFile)
		if err := os.WriteFile(sig, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"verify", "sigstore", "--signature", sig, "--trust_config", trust, "--identity_provider", s.issuer.people(), dir, "--identity"}
		python.must(t, append(args, person)...)
		if out, err := python.run(t, append(args, "x"+person)...); err == nil {
			t.Errorf("model-signing takes another identity: %s", out)
		}
		s.verifyModel(t, b, dir)
		if out, err := python.run(t, append(args, person)...); err == nil {
			t.Errorf("model-signing takes another model: %s", out)
		}
	})
	t.Run("theirs", func(t *testing.T) {
		dir := model(t)
		sig := filepath.Join(dir, oms.SignatureFile)
		python.must(t, "sign", "sigstore", "--signature", sig, "--trust_config", trust, "--identity_token", s.issuer.person(person), dir)
		b, err := provenance.ParseBundle([]byte(readFile(t, sig)))
		if err != nil {
			t.Fatal(err)
		}
		s.verifyModel(t, b, dir)
	})
}

func TestCommandSignsModelsKeyless(t *testing.T) {
	s, cli, dir := sigstoreStack(t), command(t), model(t)
	token := file(t, "token", []byte(s.issuer.person(person)))
	cli.must(t, "oms", "sign", dir, "--keyless", "--identity-token", token, "--signing-config", s.cfgPath, "--trusted-root", s.rootPath)
	verify := []string{"oms", "verify", dir, "--certificate-oidc-issuer", s.issuer.people(), "--trusted-root", s.rootPath, "--certificate-identity"}
	cli.must(t, append(verify, person)...)
	if out, err := cli.run(t, append(verify, "x"+person)...); err == nil {
		t.Errorf("another identity was taken: %s", out)
	}
}
