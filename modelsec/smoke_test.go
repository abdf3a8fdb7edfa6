package modelsec_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

func TestSmoke(t *testing.T) {
	ctx := context.Background()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signer, err := provenance.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := encrypt.GenerateIdentity("")
	if err != nil {
		t.Fatal(err)
	}
	w := make([]byte, 5<<20+123)
	rand.Read(w)
	src := fstest.MapFS{"model.safetensors": {Data: w}, "config.json": {Data: []byte("{}")}, "sub/empty": {Data: nil}}
	mem := registry.NewMemory()
	c := &modelsec.Client{Registry: mem, Identities: []encrypt.Identity{id}}
	for _, rec := range [][]encrypt.Recipient{nil, {id.Recipient()}} {
		d, err := c.Push(ctx, "reg.example.com/team/llama:v3", src, &modelsec.PushOptions{Signer: signer, Recipients: rec})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(d)
		dir := filepath.Join(t.TempDir(), "out")
		rep, err := c.Pull(ctx, "reg.example.com/team/llama:v3", dir, provenance.RequireKey(key.Public()), nil)
		if err != nil {
			t.Fatal(err, rep)
		}
		got, err := os.ReadFile(filepath.Join(dir, "model.safetensors"))
		if err != nil || !bytes.Equal(got, w) {
			t.Fatal("differs", err)
		}
	}
}
