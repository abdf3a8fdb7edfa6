// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
)

// softHSM is where Debian has the library.
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// newTokenPlugin builds the plugin for tokens and returns its folder.
func newTokenPlugin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command(program(t, "go"), "build", "-o", filepath.Join(dir, "sigstore-kms-hsm"), ".")
	cmd.Dir = filepath.Join("..", "..", "..", "examples", "sigstore-kms-hsm")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// TestTokenSignsForCosignAndCommand: one key in SoftHSM, one plugin, both tools in
// both directions.
func TestTokenSignsForCosignAndCommand(t *testing.T) {
	softhsm := newTool(t, "softhsm2-util")
	if _, err := os.Stat(softHSM); err != nil {
		missing(t, "SoftHSM")
	}
	cli, cosign := command(t), newTool(t, "cosign-v3")
	plugin, tokens := newTokenPlugin(t), t.TempDir()
	conf := file(t, "softhsm2.conf", fmt.Appendf(nil, "directories.tokendir = %s\nlog.level = ERROR\n", tokens))
	pin := file(t, "pin", []byte("1234\n"))
	softhsm.env = append(softhsm.env, "SOFTHSM2_CONF="+conf)
	softhsm.must(t, "--init-token", "--free", "--label", "release", "--pin", "1234", "--so-pin", "5678")
	for _, x := range []*tool{&cli, &cosign} {
		x.env = append([]string{"PATH=" + plugin + ":" + os.Getenv("PATH"), "SOFTHSM2_CONF=" + conf, "PKCS11_MODULE_PATH=" + softHSM}, x.env[1:]...)
	}

	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []crypto.Signer{ecdsaKey(t, elliptic.P256()), ecdsaKey(t, elliptic.P384()), edwards} {
		name := fmt.Sprintf("key%d", i)
		t.Run(fmt.Sprintf("%T %d", key, i), func(t *testing.T) {
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			softhsm.must(t, "--import", file(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
				"--token", "release", "--label", name, "--id", fmt.Sprintf("%02x", i+1), "--pin", "1234")
			if der, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
				t.Fatal(err)
			}
			public := file(t, "signing.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
			uri := "token=release;object=" + name + "?pin-source=file:" + pin

			ref := repository(t) + ":v1"
			pinned := strings.TrimSpace(cli.must(t, "push", model(t), ref, "--sign-key", "pkcs11:"+uri))
			cli.must(t, "verify", ref, "--key", public)
			if i != 0 {
				return // cosign verifies every key of a file with SHA-256, and Ed25519 with its own pre-hash
			}
			cosign.must(t, "verify-attestation", "--insecure-ignore-tlog", "--allow-http-registry", "--type", provenance.PredicateRelease, "--key", public, pinned)
			pinned = strings.TrimSpace(cli.must(t, "push", model(t), repository(t)+":v1"))
			cosign.must(t, "sign", "--key", "hsm://"+uri, "--use-signing-config=false", "--tlog-upload=false", "--yes", "--allow-http-registry", pinned)
			cli.must(t, "verify", pinned, "--key", public)
		})
	}
	wrong := "pkcs11:token=release;object=key0?pin-source=file:" + file(t, "wrong", []byte("4321"))
	if out, err := cli.run(t, "push", model(t), repository(t)+":v1", "--sign-key", wrong); err == nil || !strings.Contains(err.Error(), "CKR_PIN_INCORRECT") {
		t.Errorf("a wrong PIN: got %s, %v", out, err)
	}
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
