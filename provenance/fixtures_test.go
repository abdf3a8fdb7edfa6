// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

const (
	repository = "registry.example.com/team/llama"
	workflow   = "https://github.com/acme/train/.github/workflows/train.yml@refs/heads/main"
	issuer     = "https://token.actions.githubusercontent.com"
	builder    = "https://github.com/actions/runner/github-hosted"
	source     = "git+https://github.com/acme/train"
)

var (
	manifest = digest.FromString("manifest")
	index    = digest.FromString("index")
	now      = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
)

func newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newEd25519(t testing.TB) crypto.Signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicPEM(t testing.TB, pub crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func keyPrincipal(t testing.TB, name string) provenance.Principal {
	t.Helper()
	return provenance.Principal{Name: name, Key: publicPEM(t, newKey(t).Public())}
}

func workflowPrincipal() provenance.Principal {
	return provenance.Principal{Name: "ci", Issuer: issuer, Subject: workflow,
		SourceRepository: "https://github.com/acme/train", SourceOwnerID: "4242", SourceRef: "refs/heads/main", Trigger: "push"}
}

// must makes fixtures readable where an error is a mistake in the test.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func release() provenance.Release {
	return provenance.Release{Name: "team/llama", Tags: []string{"v3", "latest"}, Sequence: 12, Expires: now.Add(time.Hour),
		Profile: provenance.ProfileEncrypted, IndexDigest: index}
}

func releaseStatement(t testing.TB, change func(*provenance.Release)) provenance.Statement {
	t.Helper()
	r := release()
	if change != nil {
		change(&r)
	}
	return must[provenance.Statement](t)(provenance.NewRelease(r))
}

func build() provenance.Build {
	return provenance.Build{
		Parameters: provenance.FineTune{Method: "lora", Source: source},
		Builder:    builder,
		Dependencies: []provenance.Dependency{
			{URI: "registry.example.com/base/llama", Digest: digest.FromString("base"), Role: provenance.RoleBase},
			{URI: "https://data.example.com/set", Digest: digest.FromString("data"), Role: provenance.RoleDataset},
			{URI: source + "@refs/heads/main", Digest: digest.FromString("code"), Role: provenance.RoleCode},
		},
	}
}

func slsaStatement(t testing.TB, change func(*provenance.Build)) provenance.Statement {
	t.Helper()
	b := build()
	if change != nil {
		change(&b)
	}
	return must[provenance.Statement](t)(provenance.NewProvenance(b))
}

func cosignStatement() provenance.Statement {
	return provenance.Statement{PredicateType: provenance.PredicateCosignSign, Predicate: []byte(`{}`)}
}

func verified(signer provenance.Principal, s provenance.Statement) provenance.Verified {
	return provenance.Verified{Signer: signer, Statement: s, Subjects: []digest.Digest{manifest}}
}

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }
