// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"testing/fstest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// The examples keep everything in memory. With the zero Registry, references
// are those of registries and of layouts on disk.
var (
	ctx    = context.Background()
	key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signer provenance.Signer
	policy = provenance.RequireKey(key.Public())
	team   *encrypt.HPKEIdentity
	llama  = fstest.MapFS{
		"model.safetensors": {Data: []byte("the weights")},
		"config.json":       {Data: []byte("{}")},
	}
)

// published pushes the model that an example is about.
func published() (*modelsec.Client, string) {
	var err error
	if signer, err = provenance.KeySigner(key); err != nil {
		log.Fatal(err)
	}
	if team, err = encrypt.GenerateIdentity(""); err != nil {
		log.Fatal(err)
	}
	c := &modelsec.Client{Registry: registry.NewMemory(), Identities: []encrypt.Identity{team}}
	o := &modelsec.PushOptions{Signer: signer, Recipients: []encrypt.Recipient{team.Recipient()}}
	d, err := c.Push(ctx, "registry.example.com/team/llama:v3", llama, o)
	if err != nil {
		log.Fatal(err)
	}
	return c, "registry.example.com/team/llama@" + string(d.Digest)
}

func ExampleClient_Push() {
	signer, err := provenance.KeySigner(key)
	if err != nil {
		log.Fatal(err)
	}
	team, err := encrypt.GenerateIdentity("")
	if err != nil {
		log.Fatal(err)
	}
	c := &modelsec.Client{Registry: registry.NewMemory()}
	_, err = c.Push(ctx, "registry.example.com/team/llama:v3", llama, &modelsec.PushOptions{
		Recipients: []encrypt.Recipient{team.Recipient()},
		Signer:     signer,
	})
	fmt.Println(err)
	// Output: <nil>
}

func ExampleClient_Pull() {
	c, _ := published()
	dir, err := os.MkdirTemp("", "example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	report, err := c.Pull(ctx, "registry.example.com/team/llama:v3", filepath.Join(dir, "llama"), policy, nil)
	if err != nil {
		log.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "llama", "model.safetensors"))
	fmt.Printf("allowed: %v, %s, %v\n", report.Allowed, b, err)
	// Output: allowed: true, the weights, <nil>
}

func ExampleClient_Verify() {
	c, _ := published()
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	report, err := c.Verify(ctx, "registry.example.com/team/llama:v3", provenance.RequireKey(stranger.Public()))
	var refused *provenance.PolicyError
	fmt.Println(errors.As(err, &refused), report.Allowed)
	// Output: true false
}

func ExampleClient_VerifyDeep() {
	c, _ := published()
	report, err := c.VerifyDeep(ctx, "registry.example.com/team/llama:v3", policy)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("layer digests:", report.LayerDigests)
	// Output: layer digests: compared
}

func ExampleClient_Open() {
	c, _ := published()
	m, err := c.Open(ctx, "registry.example.com/team/llama:v3", policy)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	for _, f := range m.Files() {
		fmt.Println(f.Name, f.Role, f.Size)
	}
	// Output:
	// model.safetensors weight 11
	// config.json weight.config 2
}

func ExampleModel_ReaderAt() {
	c, _ := published()
	m, err := c.Open(ctx, "registry.example.com/team/llama:v3", policy)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	r, err := m.ReaderAt(ctx, "model.safetensors")
	if err != nil {
		log.Fatal(err)
	}
	b := make([]byte, 7)
	if _, err := r.ReadAt(b, 4); err != nil && err != io.EOF {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", b)
	// Output: weights
}

func ExampleModel_FS() {
	c, _ := published()
	m, err := c.Open(ctx, "registry.example.com/team/llama:v3", policy)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	b, err := fs.ReadFile(m.FS(ctx), "config.json")
	fmt.Printf("%s %v\n", b, err)
	// Output: {} <nil>
}

func ExampleModel_Extract() {
	c, _ := published()
	m, err := c.Open(ctx, "registry.example.com/team/llama:v3", policy)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	dir, err := os.MkdirTemp("", "example-*")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	err = m.Extract(ctx, filepath.Join(dir, "llama"), &modelsec.ExtractOptions{Include: []string{"*.json"}})
	found, _ := filepath.Glob(filepath.Join(dir, "llama", "*"))
	fmt.Println(len(found), err)
	// Output: 1 <nil>
}

func ExampleClient_Inspect() {
	c, _ := published()
	info, err := c.Inspect(ctx, "registry.example.com/team/llama:v3")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("encrypted:", info.Encrypted, "layers:", info.Layers, "grants:", info.Grants)
	// Output: encrypted: true layers: 2 grants: 1
}

func ExampleClient_Resolve() {
	c, pinned := published()
	d, err := c.Resolve(ctx, "registry.example.com/team/llama:v3")
	fmt.Println("registry.example.com/team/llama@"+string(d.Digest) == pinned, err)
	// Output: true <nil>
}

func ExampleClient_Attest() {
	c, pinned := published()
	st, err := provenance.NewProvenance(provenance.Build{
		Parameters: provenance.Convert{From: "pytorch", To: "safetensors"},
		Builder:    "https://builders.example.com/convert/v1",
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Attest(ctx, pinned, signer, st)
	fmt.Println(err)
	_, err = c.Attest(ctx, "registry.example.com/team/llama:v3", signer, st)
	fmt.Println(errors.Is(err, modelsec.ErrUnpinned))
	// Output:
	// <nil>
	// true
}

func ExampleClient_Attach() {
	c, pinned := published()
	ref, err := registry.ParseReference(pinned)
	if err != nil {
		log.Fatal(err)
	}
	payload, err := provenance.Statement{PredicateType: provenance.PredicateCosignSign, Predicate: []byte("{}")}.Encode(ref.Digest)
	if err != nil {
		log.Fatal(err)
	}
	elsewhere, err := signer.Sign(ctx, provenance.PayloadType, payload)
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Attach(ctx, pinned, elsewhere)
	fmt.Println(err)
	// Output: <nil>
}

func ExampleClient_Tag() {
	c, pinned := published()
	err := c.Tag(ctx, pinned, modelsec.TagOptions{Signer: signer}, "latest")
	if err != nil {
		log.Fatal(err)
	}
	report, err := c.Verify(ctx, "registry.example.com/team/llama:latest", policy)
	fmt.Println(report.Allowed, err)
	// Output: true <nil>
}

func ExampleClient_Grant() {
	c, pinned := published()
	customer, err := encrypt.GenerateIdentity("")
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Grant(ctx, pinned, policy, []encrypt.Recipient{customer.Recipient()}, &modelsec.GrantOptions{Signer: signer})
	if err != nil {
		log.Fatal(err)
	}
	theirs := &modelsec.Client{Registry: c.Registry, Identities: []encrypt.Identity{customer}}
	m, err := theirs.Open(ctx, pinned, policy)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(m.Files()), m.Close())
	// Output: 2 <nil>
}

func ExampleClient_Grants() {
	c, pinned := published()
	entries, err := c.Grants(ctx, pinned)
	if err != nil {
		log.Fatal(err)
	}
	for _, e := range entries {
		fmt.Println(e.Type, e.Scope, "signed:", e.Signed)
	}
	// Output: hpke-mlkem768-x25519 artifact signed: true
}

func ExampleClient_Revoke() {
	c, pinned := published()
	entries, err := c.Grants(ctx, pinned)
	if err != nil {
		log.Fatal(err)
	}
	err = c.Revoke(ctx, pinned, &modelsec.RevokeOptions{Signer: signer, Policy: &policy}, entries[0].KeyID)
	if err != nil {
		log.Fatal(err)
	}
	_, err = c.Open(ctx, pinned, policy)
	fmt.Println(errors.Is(err, modelsec.ErrNoKey))
	// Output: true
}

func ExampleClient_Copy() {
	c, _ := published()
	_, err := c.Copy(ctx, "mirror.example.com/team/llama:v3", "registry.example.com/team/llama:v3", &modelsec.CopyOptions{
		Policy: &policy,
		Grants: modelsec.CopyAllGrants,
	})
	fmt.Println(err)
	// Output: <nil>
}
