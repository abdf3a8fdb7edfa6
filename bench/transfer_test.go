// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// modelSize makes one transfer long enough to drown its fixed costs: about ten
// requests for evidence, two signatures, one key exchange.
const modelSize = 256 << 20

// bed is a registry within this process and everything that a transfer needs.
type bed struct {
	dir     string
	server  *ociserver.Server
	client  *modelsec.Client
	ref     string
	source  fstest.MapFS
	options modelsec.PushOptions
	policy  provenance.Policy
}

func newBed(b *testing.B, encrypted bool) *bed {
	b.Helper()
	t := &bed{client: &modelsec.Client{}, dir: memory(b)}
	t.empty(b)
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.server.ServeHTTP(w, r) }))
	b.Cleanup(func() { host.Close(); t.server.Close() })
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	t.ref = strings.TrimPrefix(host.URL, "http://") + "/bench/model:v1"
	t.source = fstest.MapFS{"model.safetensors": {Data: random(modelSize)}}
	t.policy = provenance.RequireKey(key.Public())
	if t.options.Signer, err = provenance.KeySigner(key); err != nil {
		b.Fatal(err)
	}
	if encrypted {
		id, err := encrypt.GenerateIdentity(encrypt.DefaultType)
		if err != nil {
			b.Fatal(err)
		}
		t.client.Identities = []encrypt.Identity{id}
		t.options.Recipients = []encrypt.Recipient{id.Recipient()}
	}
	return t
}

// empty starts over with a registry that has nothing.
func (t *bed) empty(b *testing.B) {
	b.Helper()
	if t.server != nil {
		t.server.Close()
	}
	dir := filepath.Join(t.dir, "registry")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		b.Fatal(err)
	}
	var err error
	if t.server, err = ociserver.NewDir(dir); err != nil {
		b.Fatal(err)
	}
}

// memory is a directory on tmpfs where there is one, so that no disk is
// measured.
func memory(b *testing.B) string {
	if _, err := os.Stat("/dev/shm"); err != nil {
		return b.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "modelsec-bench-")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// profiles runs a benchmark for both profiles.
func profiles(b *testing.B, run func(b *testing.B, t *bed)) {
	for _, p := range []struct {
		name      string
		encrypted bool
	}{{"plain", false}, {"encrypted", true}} {
		b.Run(p.name, func(b *testing.B) {
			run(b, newBed(b, p.encrypted))
		})
	}
}

// BenchmarkPush pushes one file. Client and registry share the processors.
func BenchmarkPush(b *testing.B) {
	profiles(b, func(b *testing.B, t *bed) {
		b.SetBytes(modelSize)
		for b.Loop() {
			if _, err := t.client.Push(context.Background(), t.ref, t.source, &t.options); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			t.empty(b)
			b.StartTimer()
		}
	})
}

// BenchmarkPull pulls one file under a policy.
func BenchmarkPull(b *testing.B) {
	profiles(b, func(b *testing.B, t *bed) {
		if _, err := t.client.Push(context.Background(), t.ref, t.source, &t.options); err != nil {
			b.Fatal(err)
		}
		dir := filepath.Join(memory(b), "model")
		b.SetBytes(modelSize)
		for b.Loop() {
			if _, err := t.client.Pull(context.Background(), t.ref, dir, t.policy, nil); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := os.RemoveAll(dir); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}
