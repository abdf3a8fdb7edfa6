// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// modelSigning is the reference implementation of OpenSSF Model Signing, the
// Python package model-signing.
type modelSigning struct {
	path string
	env  []string
}

func newModelSigning(t *testing.T) *modelSigning {
	t.Helper()
	return &modelSigning{path: program(t, "model_signing"), env: append(cleanEnv(t), "PYTHONDONTWRITEBYTECODE=1")}
}

func (m *modelSigning) run(args ...string) (string, error) {
	cmd := exec.Command(m.path, args...)
	cmd.Env = m.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// signee is a model to sign, with what there is to sign and to ignore. Python
// sorts a/x before a-b/x, the specification after it.
func signee(t *testing.T) string {
	t.Helper()
	return writeModel(t, map[string][]byte{
		"model.safetensors": noise(3 << 20), "config.json": []byte("{}"), "a/x": []byte("x"), "a-b/x": []byte("y"),
		"naïve 模型.txt": []byte("<&>"), "empty": nil, ".gitattributes": []byte("*"), ".git/HEAD": []byte("ref"), "cache/blob": []byte("b"),
	})
}

func pemFile(t *testing.T, kind string, blocks ...[]byte) string {
	t.Helper()
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})...)
	}
	path := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signerOf is a key of a curve, and a certificate for it by an intermediate one.
type signerOf struct {
	key                                *ecdsa.PrivateKey
	leaf, between, root                *x509.Certificate
	keyFile, pubFile, leafFile         string
	betweenFile, rootFile, strangeFile string
}

func newSignerOf(t *testing.T, curve elliptic.Curve) *signerOf {
	t.Helper()
	ca := x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	root, rootKey := issue(t, "root", ca, nil, nil, elliptic.P256())
	between, betweenKey := issue(t, "between", ca, root, rootKey, elliptic.P256())
	leaf, key := issue(t, "leaf", x509.Certificate{KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}},
		between, betweenKey, curve)
	strange, _ := issue(t, "root", ca, nil, nil, elliptic.P256())
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &signerOf{key, leaf, between, root,
		pemFile(t, "PRIVATE KEY", private), pemFile(t, "PUBLIC KEY", public), pemFile(t, "CERTIFICATE", leaf.Raw),
		pemFile(t, "CERTIFICATE", between.Raw), pemFile(t, "CERTIFICATE", root.Raw), pemFile(t, "CERTIFICATE", strange.Raw)}
}

func issue(t *testing.T, name string, c x509.Certificate, parent *x509.Certificate, by crypto.Signer, curve elliptic.Curve) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c.SerialNumber, c.Subject = serial, pkix.Name{CommonName: name}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	if parent == nil {
		parent, by = &c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out, key
}

var signingCurves = []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}

func TestModelSigningVerifiesWhatGoSigned(t *testing.T) {
	m := newModelSigning(t)
	for _, curve := range signingCurves {
		s := newSignerOf(t, curve)
		key, err := oms.KeySigner(s.key)
		if err != nil {
			t.Fatal(err)
		}
		certificate, err := oms.CertificateSigner(s.key, s.leaf, s.between)
		if err != nil {
			t.Fatal(err)
		}
		for method, c := range map[string]struct {
			signer       provenance.Signer
			right, wrong []string
		}{
			"key":         {key, []string{"--public_key", s.pubFile}, []string{"--public_key", newSignerOf(t, curve).pubFile}},
			"certificate": {certificate, []string{"--certificate_chain", s.rootFile}, []string{"--certificate_chain", s.strangeFile}},
		} {
			t.Run(method+" "+curve.Params().Name, func(t *testing.T) {
				dir := signee(t)
				b, err := oms.Sign(t.Context(), c.signer, os.DirFS(dir), "llama", &oms.SignOptions{IgnorePaths: []string{"cache"}})
				if err != nil {
					t.Fatal(err)
				}
				sig := filepath.Join(dir, oms.SignatureFile)
				if err := os.WriteFile(sig, b.Bytes(), 0o600); err != nil {
					t.Fatal(err)
				}
				verify := func(trust []string) (string, error) {
					return m.run(append([]string{"verify", method, "--signature", sig, dir}, trust...)...)
				}
				if out, err := verify(c.right); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if out, err := verify(c.wrong); err == nil {
					t.Errorf("verified with another's: %s", out)
				}
				if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("[]"), 0o600); err != nil {
					t.Fatal(err)
				}
				if out, err := verify(c.right); err == nil {
					t.Errorf("verified another model: %s", out)
				}
			})
		}
	}
}

func TestGoVerifiesWhatModelSigningSigned(t *testing.T) {
	m := newModelSigning(t)
	for _, curve := range signingCurves {
		s := newSignerOf(t, curve)
		roots := x509.NewCertPool()
		roots.AddCert(s.root)
		for method, c := range map[string]struct {
			args     []string
			verifier provenance.Verifier
		}{
			"key": {[]string{"--private_key", s.keyFile}, provenance.KeyVerifier(s.key.Public())},
			"certificate": {[]string{"--private_key", s.keyFile, "--signing_certificate", s.leafFile, "--certificate_chain", s.betweenFile},
				oms.CertificateVerifier(roots, time.Time{})},
		} {
			t.Run(method+" "+curve.Params().Name, func(t *testing.T) {
				dir := signee(t)
				sig := filepath.Join(dir, oms.SignatureFile)
				if out, err := m.run(append([]string{"sign", method, "--signature", sig, "--ignore-paths", filepath.Join(dir, "cache"), dir}, c.args...)...); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				verifyModelSigning(t, c.verifier, dir)
			})
		}
	}
}

// TestGoVerifiesShardsOfModelSigning: its command line has no option for them.
func TestGoVerifiesShardsOfModelSigning(t *testing.T) {
	m, s, dir := newModelSigning(t), newSignerOf(t, elliptic.P256()), signee(t)
	python := filepath.Join(filepath.Dir(m.path), "python3")
	cmd := exec.Command(python, "-c", `
import sys, model_signing
model, key = sys.argv[1:]
hashing = model_signing.hashing.Config().use_shard_serialization(shard_size=1000003)
hashing.set_ignored_paths(paths=["cache"])
model_signing.signing.Config().use_elliptic_key_signer(private_key=key).set_hashing_config(hashing).sign(model, model + "/model.sig")
`, dir, s.keyFile)
	cmd.Env = m.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	verifyModelSigning(t, provenance.KeyVerifier(s.key.Public()), dir)
}

func verifyModelSigning(t *testing.T, v provenance.Verifier, dir string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, oms.SignatureFile))
	if err != nil {
		t.Fatal(err)
	}
	b, err := provenance.ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), nil); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "a", "x"), []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	var mismatch *oms.MismatchError
	if _, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), nil); !errors.As(err, &mismatch) {
		t.Errorf("another model: got %v, want a mismatch", err)
	}
}

// TestSignatureFromOnePassIsModelSignings: the digests that a push makes anyway
// are enough for a signature of the directory, and model-signing takes it.
func TestSignatureFromOnePassIsModelSignings(t *testing.T) {
	m, s, p, dir := newModelSigning(t), newSignerOf(t, elliptic.P384()), newParty(t), signee(t)
	signer, err := oms.KeySigner(s.key)
	if err != nil {
		t.Fatal(err)
	}
	var b *provenance.Bundle
	o := p.options(t)
	o.Name, o.Exclude = "team/llama", []string{"cache"}
	o.FileDigests = func(ctx context.Context, files map[string]digest.Digest) (err error) {
		b, err = oms.SignDigests(ctx, signer, "llama", files, &oms.SignOptions{IgnorePaths: []string{"cache"}})
		return err
	}
	if _, err := p.client().Push(t.Context(), "oci:"+filepath.Join(t.TempDir(), "layout")+":v1", os.DirFS(dir), o); err != nil {
		t.Fatal(err)
	}
	sig := filepath.Join(dir, oms.SignatureFile)
	if err := os.WriteFile(sig, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := m.run("verify", "key", "--signature", sig, "--public_key", s.pubFile, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	verifyModelSigning(t, provenance.KeyVerifier(s.key.Public()), dir)
}

// TestSignedDirectoryStaysBoundInTheArtifact: the signature travels as a file of
// the artifact, so that the digest of the manifest stands for it too, and an
// opened model proves itself against it.
func TestSignedDirectoryStaysBoundInTheArtifact(t *testing.T) {
	m, s, p := newModelSigning(t), newSignerOf(t, elliptic.P256()), newParty(t)
	dir := signee(t)
	if out, err := m.run("sign", "key", "--signature", filepath.Join(dir, oms.SignatureFile), "--ignore-paths", filepath.Join(dir, "cache"),
		"--private_key", s.keyFile, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	v := provenance.KeyVerifier(s.key.Public())
	for profile, to := range map[string][]encrypt.Recipient{"plain": nil, "encrypted": {p.identity.Recipient()}} {
		for name, change := range map[string]func(string) error{
			"as signed": func(string) error { return nil },
			"changed":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "config.json"), []byte("[]"), 0o600) },
			"more":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "more.py"), nil, 0o600) },
			"less":      func(dir string) error { return os.Remove(filepath.Join(dir, "empty")) },
		} {
			t.Run(profile+" "+name, func(t *testing.T) {
				copied := filepath.Join(t.TempDir(), "model")
				if err := errors.Join(os.CopyFS(copied, os.DirFS(dir)), change(copied)); err != nil {
					t.Fatal(err)
				}
				ref := "oci:" + filepath.Join(t.TempDir(), "layout") + ":v1"
				o := p.options(t, to...)
				o.Name = "team/llama"
				if _, err := p.client().Push(t.Context(), ref, os.DirFS(copied), o); err != nil {
					t.Fatal(err)
				}
				policy := p.policy
				policy.Rules[0].Name = "team/llama"
				model, err := p.client().Open(t.Context(), ref, policy)
				if err != nil {
					t.Fatal(err)
				}
				defer model.Close()
				text, err := fs.ReadFile(model.FS(t.Context()), oms.SignatureFile)
				if err != nil {
					t.Fatal(err)
				}
				b, err := provenance.ParseBundle(text)
				if err != nil {
					t.Fatal(err)
				}
				_, err = oms.Verify(t.Context(), v, b, model.FS(t.Context()), nil)
				var mismatch *oms.MismatchError
				if name == "as signed" && err != nil || name != "as signed" && !errors.As(err, &mismatch) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}
