// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/examples/internal/podenv"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// cluster is a registry with one encrypted model, and what a pod has to read it.
type cluster struct {
	uri   string
	model string
	env   map[string]string
	log   bytes.Buffer
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	dir := t.TempDir()
	c := &cluster{model: filepath.Join(dir, "source"), env: map[string]string{}}
	write(t, filepath.Join(c.model, "config.json"), []byte(`{"model_type":"llama"}`))
	weights := make([]byte, 3<<20)
	rand.Read(weights)
	write(t, filepath.Join(c.model, "model.safetensors"), weights)

	server := httptest.NewServer(ociserver.New())
	t.Cleanup(server.Close)
	ref := strings.TrimPrefix(server.URL, "http://") + "/team/llama:v3"
	c.uri = scheme + ref

	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c.env["MODELSEC_KEY"] = filepath.Join(dir, "signing.pub")
	write(t, c.env["MODELSEC_KEY"], publicPEM(key))
	identity := must(encrypt.GenerateIdentity(encrypt.DefaultType))
	c.env["MODELSEC_IDENTITY"] = filepath.Join(dir, "identity.key")
	write(t, c.env["MODELSEC_IDENTITY"], []byte(identity.PEM()))

	must(new(modelsec.Client).Push(t.Context(), ref, os.DirFS(c.model), &modelsec.PushOptions{
		Signer:     must(provenance.KeySigner(key)),
		Recipients: []encrypt.Recipient{identity.Recipient()},
	}))
	return c
}

// run is the process: what it logs is kept, its exit status returned.
func (c *cluster) run(ctx context.Context, args ...string) (int, error) {
	err := initialize(ctx, args, func(name string) string { return c.env[name] }, slog.New(slog.NewJSONHandler(&c.log, nil)))
	return statusOf(ctx, err), err
}

func TestModelOfTheURIIsInTheDirectory(t *testing.T) {
	c := newCluster(t)
	one, two := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "two")
	if status, err := c.run(t.Context(), c.uri, one, c.uri, two); status != statusDone {
		t.Fatalf("status %d: %v", status, err)
	}
	for _, dir := range []string{one, two} {
		sameFiles(t, c.model, dir)
	}
	// The digest is what an operator looks for after a tag has moved.
	var placed int
	for line := range strings.Lines(c.log.String()) {
		var entry struct{ Msg, Digest string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Errorf("log line is not JSON: %q", line)
		}
		if entry.Msg == "model in place" && strings.HasPrefix(entry.Digest, "sha256:") {
			placed++
		}
	}
	if placed != 2 {
		t.Errorf("%d models logged with their digest, want 2:\n%s", placed, &c.log)
	}
}

func TestNothingIsLoadedWithoutSayingWhomToTrust(t *testing.T) {
	c := newCluster(t)
	delete(c.env, "MODELSEC_KEY")
	dir := filepath.Join(t.TempDir(), "model")
	if status, err := c.run(t.Context(), c.uri, dir); status != statusUsage {
		t.Errorf("status %d, want %d: %v", status, statusUsage, err)
	}
	wantAbsent(t, dir)
}

func TestModelOfAnotherSignerIsRefused(t *testing.T) {
	c := newCluster(t)
	other := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	write(t, c.env["MODELSEC_KEY"], publicPEM(other))
	dir := filepath.Join(t.TempDir(), "model")
	status, err := c.run(t.Context(), c.uri, dir)
	var refused *provenance.PolicyError
	if status != statusRefused || !errors.As(err, &refused) {
		t.Errorf("status %d, want %d and a policy error: %v", status, statusRefused, err)
	}
	wantAbsent(t, dir)
}

func TestModelWithoutItsKeyIsNotOpened(t *testing.T) {
	c := newCluster(t)
	delete(c.env, "MODELSEC_IDENTITY")
	dir := filepath.Join(t.TempDir(), "model")
	if status, err := c.run(t.Context(), c.uri, dir); status != statusNoKey {
		t.Errorf("status %d, want %d: %v", status, statusNoKey, err)
	}
	wantAbsent(t, dir)
}

func TestStoppedPodSaysThatItWasInterrupted(t *testing.T) {
	c := newCluster(t)
	ctx, stop := context.WithCancel(t.Context())
	stop()
	dir := filepath.Join(t.TempDir(), "model")
	if status, err := c.run(ctx, c.uri, dir); status != statusInterrupted {
		t.Errorf("status %d, want %d: %v", status, statusInterrupted, err)
	}
	wantAbsent(t, dir)
}

func TestFilesOfOthersAreLeftAlone(t *testing.T) {
	c := newCluster(t)
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	write(t, theirs, []byte("do not touch"))
	if status, err := c.run(t.Context(), c.uri, dir); status != statusFailed {
		t.Errorf("status %d, want %d: %v", status, statusFailed, err)
	}
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "do not touch" {
		t.Errorf("%q, %v", b, err)
	}
	if entries := must(os.ReadDir(dir)); len(entries) != 1 {
		t.Errorf("directory has %v", entries)
	}
}

func TestPairsThatSayTooLittleAreRefused(t *testing.T) {
	for name, args := range map[string][]string{
		"none":               {},
		"no directory":       {"modelsec://r.example.com/a:v1"},
		"odd":                {"modelsec://r.example.com/a:v1", "/m", "modelsec://r.example.com/b:v1"},
		"other scheme":       {"s3://bucket/model", "/m"},
		"no scheme":          {"r.example.com/a:v1", "/m"},
		"no version":         {"modelsec://r.example.com/a", "/m"},
		"bad reference":      {"modelsec://r.example.com/A B:v1", "/m"},
		"relative directory": {"modelsec://r.example.com/a:v1", "m"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parsePairs(args); !errors.Is(err, podenv.ErrConfig) {
				t.Errorf("parsePairs(%q): %v", args, err)
			}
		})
	}
}

func TestTerminationMessageIsBoundedAndNeverCreated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "termination-log")
	leaveMessage(path, errors.New("x"))
	wantAbsent(t, path)
	write(t, path, []byte("older and longer"))
	leaveMessage(path, errors.New("refused"))
	if b := must(os.ReadFile(path)); string(b) != "refused" {
		t.Errorf("%q", b)
	}
	leaveMessage(path, errors.New(strings.Repeat("x", 1<<20)))
	if b := must(os.ReadFile(path)); len(b) != 4<<10 {
		t.Errorf("%d bytes", len(b))
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}

func publicPEM(key *ecdsa.PrivateKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key.Public()))})
}

func wantAbsent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v, want no such file", path, err)
	}
}

func sameFiles(t *testing.T, want, got string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(want), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		a, b := must(os.ReadFile(filepath.Join(want, path))), must(os.ReadFile(filepath.Join(got, path)))
		if !bytes.Equal(a, b) {
			t.Errorf("%s differs", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
