// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/kmsplugin"
)

// init makes the test binary a plugin where it is started under such a name.
func init() {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "sigstore-kms-") {
		pluginMain()
		os.Exit(0)
	}
}

// pluginMain is a KMS plugin on Sigstore's own half of the protocol. Its key is a
// file.
func pluginMain() {
	args, err := handler.GetPluginArgs(os.Args)
	if err == nil {
		var key *fileKey
		if key, err = loadFileKey(args.InitOptions.KeyResourceID, args.InitOptions.HashFunc); err == nil {
			_, err = handler.Dispatch(os.Stdout, os.Stdin, args, key)
		} else {
			err = handler.WriteErrorResponse(os.Stdout, err)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fileKey makes a kms.SignerVerifier of a key.
type fileKey struct {
	signature.SignerVerifier
	key crypto.Signer
}

func loadFileKey(path string, hash crypto.Hash) (*fileKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := provenance.ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	sv, err := signature.LoadSignerVerifier(key, hash)
	return &fileKey{sv, key}, err
}

func (k *fileKey) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, errors.New("keys are made elsewhere")
}

func (k *fileKey) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return k.key, crypto.SHA256, nil
}

func (k *fileKey) SupportedAlgorithms() []string { return []string{k.DefaultAlgorithm()} }
func (k *fileKey) DefaultAlgorithm() string      { return "ecdsa" }

// installPlugin returns a folder for PATH with the plugin, a key of it, and the
// file of the public key.
func installPlugin(t *testing.T, curve elliptic.Curve) (dir, uri, public string) {
	t.Helper()
	dir = t.TempDir()
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "sigstore-kms-file"))
	}
	if err != nil {
		t.Fatal(err)
	}
	key := ecdsaKey(t, curve)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return dir, "file://" + file(t, "signing.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		file(t, "signing.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}))
}

// TestPluginOfSigstoreSigns: what a plugin on Sigstore's handler signs for us
// verifies here, and with cosign.
func TestPluginOfSigstoreSigns(t *testing.T) {
	for name, curve := range map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()} {
		t.Run(name, func(t *testing.T) {
			dir, uri, public := installPlugin(t, curve)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			key, err := kmsplugin.Open(t.Context(), uri, nil)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := provenance.ParsePublicKey([]byte(readFile(t, public)))
			if err != nil {
				t.Fatal(err)
			}
			signer, err := provenance.KeySigner(key)
			if err != nil {
				t.Fatal(err)
			}
			b, err := signer.Sign(t.Context(), provenance.PayloadType, []byte(statement))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := provenance.KeyVerifier(pub).Verify(t.Context(), b); err != nil {
				t.Error(err)
			}
			if curve != elliptic.P256() {
				return // cosign verifies every key of a file with SHA-256
			}
			path, artifact := file(t, "bundle.json", b.Bytes()), file(t, "empty", nil)
			newTool(t, "cosign-v3").must(t, "verify-blob-attestation", "--bundle", path, "--key", public, "--insecure-ignore-tlog",
				"--type", provenance.PredicateCosignSign, artifact)
		})
	}
	dir, _, _ := installPlugin(t, elliptic.P256())
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	if _, err := kmsplugin.Open(t.Context(), "file:///does/not/exist", nil); !errors.Is(err, kmsplugin.ErrPlugin) || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a key that is not there: got %v", err)
	}
}

// TestOnePluginForCosignAndCommand: either signs with a key that neither has.
func TestOnePluginForCosignAndCommand(t *testing.T) {
	dir, uri, public := installPlugin(t, elliptic.P256())
	cli, cosign := command(t), newTool(t, "cosign-v3")
	for _, x := range []tool{cli, cosign} {
		x.env[0] = "PATH=" + dir + ":" + os.Getenv("PATH")
	}
	ref := repository(t) + ":v1"
	pinned := strings.TrimSpace(cli.must(t, "push", model(t), ref, "--sign-key", uri))
	cli.must(t, "verify", ref, "--key", public)
	verify := []string{"verify-attestation", "--insecure-ignore-tlog", "--allow-http-registry", "--type", provenance.PredicateRelease, "--key"}
	cosign.must(t, append(verify, public, pinned)...)
	cosign.must(t, append(verify, uri, pinned)...)

	pinned = strings.TrimSpace(cli.must(t, "push", model(t), repository(t)+":v1"))
	cosign.must(t, "sign", "--key", uri, "--use-signing-config=false", "--tlog-upload=false", "--yes", "--allow-http-registry", pinned)
	cli.must(t, "verify", pinned, "--key", public)

	for uri, want := range map[string]string{"absent://x": "sigstore-kms-absent is a KMS plugin", "pkcs11:token=x": "go -C examples/sigstore-kms-hsm install ."} {
		if _, err := cli.run(t, "push", model(t), ref, "--sign-key", uri); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", uri, err, want)
		}
	}
}
