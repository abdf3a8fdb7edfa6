// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"log"
	"testing/fstest"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// Sign a directory, and find a file changed.
func Example() {
	ctx := context.Background()
	dir := fstest.MapFS{ // or os.DirFS("llama")
		"model.safetensors": {Data: []byte("weights")},
		"config.json":       {Data: []byte("{}")},
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := oms.KeySigner(key)
	if err != nil {
		log.Fatal(err)
	}
	bundle, err := oms.Sign(ctx, signer, dir, "llama", nil)
	if err != nil {
		log.Fatal(err)
	}
	dir[oms.SignatureFile] = &fstest.MapFile{Data: bundle.Bytes()}

	verifier := provenance.KeyVerifier(&key.PublicKey)
	result, err := oms.Verify(ctx, verifier, bundle, dir, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(result.Manifest.Resources), "files as signed")

	dir["config.json"] = &fstest.MapFile{Data: []byte("[]")}
	_, err = oms.Verify(ctx, verifier, bundle, dir, nil)
	fmt.Println(err)
	// Output:
	// 2 files as signed
	// model is not the one that was signed: 1 changed: "config.json"
}
