// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package kmsplugin_test

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/kmsplugin"
)

// TestMain is also the main of the plugins that the tests start: the test binary
// under another name. What they do is in variables that begin with that name.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "sigstore-kms-") {
		plugin()
		return
	}
	os.Exit(m.Run())
}

// plugin answers as FAKE_MODE says, with the key in the file FAKE_KEY.
func plugin() {
	var req struct {
		InitOptions struct {
			ProtocolVersion, KeyResourceID string
			HashFunc                       crypto.Hash
			CtxDeadline                    time.Time
		}
		MethodName  string
		SignMessage struct {
			SignOptions struct{ MessageOptions struct{ Digest []byte } }
		}
	}
	answer := func(v any) {
		if err := json.NewEncoder(os.Stdout).Encode(v); err != nil {
			panic(err)
		}
	}
	if err := json.Unmarshal([]byte(os.Args[2]), &req); err != nil || os.Args[1] != "v1" || req.InitOptions.ProtocolVersion != "v1" || req.InitOptions.CtxDeadline.IsZero() {
		answer(map[string]string{"errorMessage": fmt.Sprintf("not the protocol: %v %q", err, os.Args)})
		return
	}
	text, err := os.ReadFile(os.Getenv("FAKE_KEY"))
	if err != nil {
		panic(err)
	}
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		panic(err)
	}
	key := parsed.(crypto.Signer)
	mode := os.Getenv("FAKE_MODE")
	if req.MethodName == "publicKey" && !strings.HasPrefix(mode, "open: ") {
		mode = ""
	}
	switch mode = strings.TrimPrefix(mode, "open: "); mode {
	case "error":
		answer(map[string]string{"errorMessage": "the service is closed on Sundays"})
		os.Exit(1)
	case "silent":
		fmt.Fprintln(os.Stderr, "no such region")
		os.Exit(3)
	case "garbage":
		fmt.Print("{}{}")
		return
	case "empty":
		answer(map[string]any{"signMessage": map[string]any{}, "publicKey": map[string]any{}})
		return
	case "another method":
		answer(map[string]any{"verifySignature": map[string]any{}})
		return
	case "chatty":
		for {
			if _, err := os.Stdout.Write(make([]byte, 4096)); err != nil {
				os.Exit(1)
			}
		}
	case "stalled":
		// The pipe tells the test that a child of the plugin is there, and when it is
		// dead.
		cmd := exec.Command("/bin/sh", "-c", `exec >"$0"; echo here; exec sleep 600`, os.Getenv("FAKE_FIFO"))
		if err := cmd.Run(); err != nil {
			os.Exit(1)
		}
	case "environment":
		answer(map[string]string{"errorMessage": strings.Join(os.Environ(), "; ")})
		return
	case "wrong signature":
		answer(map[string]any{"signMessage": map[string]any{"signature": []byte("signature")}})
		return
	}
	if req.MethodName == "publicKey" {
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			panic(err)
		}
		answer(map[string]any{"publicKey": map[string]any{"publicKeyPEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}})
		return
	}
	in, hash := req.SignMessage.SignOptions.MessageOptions.Digest, req.InitOptions.HashFunc
	if _, ok := key.(ed25519.PrivateKey); ok {
		hash = 0
		if in, err = io.ReadAll(os.Stdin); err != nil {
			panic(err)
		}
	}
	sig, err := key.Sign(rand.Reader, in, hash)
	if err != nil {
		answer(map[string]string{"errorMessage": err.Error()})
		return
	}
	answer(map[string]any{"signMessage": map[string]any{"signature": sig}})
	os.Exit(1) // which says nothing
}

// install makes PATH hold the plugin fake, and nothing else.
func install(t *testing.T, key crypto.Signer) {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "sigstore-kms-fake")); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv("FAKE_KEY", path)
}

func newKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func open(t *testing.T, o *kmsplugin.Options) *kmsplugin.Key {
	t.Helper()
	k, err := kmsplugin.Open(t.Context(), "fake://release", o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(ctx context.Context, t *testing.T, k *kmsplugin.Key) (*provenance.Bundle, error) {
	t.Helper()
	signer, err := provenance.KeySigner(k)
	if err != nil {
		t.Fatal(err)
	}
	return signer.Sign(ctx, provenance.PayloadType, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"`+
		`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}`))
}

func TestKeySignsEachAlgorithm(t *testing.T) {
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t, elliptic.P256()), "P-384": newKey(t, elliptic.P384()), "P-521": newKey(t, elliptic.P521()), "Ed25519": edwards} {
		t.Run(name, func(t *testing.T) {
			install(t, key)
			k := open(t, nil)
			b, err := sign(t.Context(), t, k)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := provenance.KeyVerifier(key.Public()).Verify(t.Context(), b); err != nil {
				t.Error(err)
			}
			if got := k.String(); got != "fake://release" {
				t.Errorf("it is called %s", got)
			}
		})
	}
}

// TestFaultsOfPluginsAreErrors that name the program and what was wrong with it.
func TestFaultsOfPluginsAreErrors(t *testing.T) {
	install(t, newKey(t, elliptic.P256()))
	for mode, want := range map[string]string{
		"error": "closed on Sundays", "silent": "no such region", "garbage": "no result", "empty": "returned no", "another method": "returned no", "chatty": "more than 65536 bytes",
	} {
		t.Run(mode, func(t *testing.T) {
			check := func(err error) {
				t.Helper()
				if !errors.Is(err, kmsplugin.ErrPlugin) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "sigstore-kms-fake") {
					t.Errorf("got %v, want ErrPlugin with %q", err, want)
				}
			}
			t.Setenv("FAKE_MODE", mode)
			_, err := sign(t.Context(), t, open(t, nil))
			check(err)
			t.Setenv("FAKE_MODE", "open: "+mode)
			_, err = kmsplugin.Open(t.Context(), "fake://release", nil)
			check(err)
		})
	}
	t.Setenv("FAKE_MODE", "wrong signature")
	if b, err := sign(t.Context(), t, open(t, nil)); err == nil || !strings.Contains(err.Error(), "does not verify") {
		t.Errorf("a wrong signature: got %v, %v", b, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	install(t, newKey(t, elliptic.P256()))
	for _, uri := range []string{"", "fake", "fake:release", "://release", "../fake://x", "Fake://x", "fake /x://", "fake://" + strings.Repeat("x", 2048), "fake://\x00"} {
		if k, err := kmsplugin.Open(t.Context(), uri, nil); err == nil {
			t.Errorf("%.40q: got %v", uri, k)
		}
	}
	if k, err := kmsplugin.Open(t.Context(), "other://x", nil); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "sigstore-kms-other") {
		t.Errorf("a program that is not there: got %v, %v", k, err)
	}
	small, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{small, big} {
		install(t, key)
		if _, err := kmsplugin.Open(t.Context(), "fake://x", nil); !errors.Is(err, kmsplugin.ErrPlugin) {
			t.Errorf("a key of type %T: got %v", key, err)
		}
	}
	// Where a plugin comes from does not depend on the current directory.
	install(t, newKey(t, elliptic.P256()))
	t.Chdir(os.Getenv("PATH"))
	t.Setenv("PATH", ".")
	if k, err := kmsplugin.Open(t.Context(), "fake://x", nil); !errors.Is(err, exec.ErrDot) {
		t.Errorf("by way of the current directory: got %v, %v", k, err)
	}
}

// TestPluginSeesItsOwnVariables and none of another service.
func TestPluginSeesItsOwnVariables(t *testing.T) {
	install(t, newKey(t, elliptic.P256()))
	t.Setenv("FAKE_REGION", "north")
	t.Setenv("AWS_SESSION_TOKEN", "s3cr3t")
	t.Setenv("PASSED_ON", "here")
	t.Setenv("FAKE_MODE", "environment")
	_, err := sign(t.Context(), t, open(t, &kmsplugin.Options{Env: []string{"PASSED_*"}}))
	if err == nil {
		t.Fatal("no error")
	}
	for text, want := range map[string]bool{"FAKE_REGION=north": true, "PASSED_ON=here": true, "s3cr3t": false, "AWS_": false} {
		if strings.Contains(err.Error(), text) != want {
			t.Errorf("the environment has %s: %v, want %v\n%v", text, !want, want, err)
		}
	}
}

// TestSignEndsWithItsContext, and with it the plugin and what it started.
func TestSignEndsWithItsContext(t *testing.T) {
	install(t, newKey(t, elliptic.P256()))
	path := os.Getenv("PATH")
	fifo := filepath.Join(path, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path+":/usr/bin:/bin")
	t.Setenv("FAKE_FIFO", fifo)
	t.Setenv("FAKE_MODE", "stalled")
	k := open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := sign(ctx, t, k)
		done <- err
	}()
	pipe, err := os.Open(fifo) // waits for the child of the plugin
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	r := bufio.NewReader(pipe)
	if line, err := r.ReadString('\n'); err != nil || line != "here\n" {
		t.Fatalf("the child says %q, error %v", line, err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := r.ReadByte(); err != io.EOF { // when it is dead
		t.Errorf("the child goes on: %v", err)
	}
}

func TestSignEndsWithItsTimeout(t *testing.T) {
	install(t, newKey(t, elliptic.P256()))
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/bin:/bin")
	fifo := filepath.Join(t.TempDir(), "fifo") // that nobody reads
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("FAKE_FIFO", fifo)
	k := open(t, nil)
	t.Setenv("FAKE_MODE", "stalled")
	k.SetTimeout(time.Second)
	if _, err := k.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); !errors.Is(err, kmsplugin.ErrPlugin) || !strings.Contains(err.Error(), "no answer in 1s") {
		t.Errorf("got %v", err)
	}
}

func TestSignRefusesWhatIsNoDigest(t *testing.T) {
	install(t, newKey(t, elliptic.P256()))
	k := open(t, nil)
	for size, o := range map[int]crypto.SignerOpts{31: crypto.SHA256, 33: crypto.SHA256, 8<<20 + 1: crypto.Hash(0)} {
		if sig, err := k.Sign(rand.Reader, make([]byte, size), o); err == nil {
			t.Errorf("%d bytes: got %x", size, sig)
		}
	}
}
