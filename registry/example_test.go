// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

func ExampleClient() {
	dir, err := os.MkdirTemp("", "layout")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	ref, err := registry.ParseReference("oci:" + dir + ":v1") // or registry.example.com/team/llama:v1
	if err != nil {
		log.Fatal(err)
	}
	client := new(registry.Client)
	store, err := client.Open(ctx, ref.Name)
	if err != nil {
		log.Fatal(err)
	}

	weights := []byte("0123456789")
	writer, err := store.(registry.WriteStore).Create(ctx, int64(len(weights)))
	if err != nil {
		log.Fatal(err)
	}
	defer writer.Close()
	if _, err := writer.Write(weights); err != nil {
		log.Fatal(err)
	}
	if err := writer.Commit(ctx, digest.FromBytes(weights)); err != nil {
		log.Fatal(err)
	}

	blob := ocispec.Descriptor{Digest: digest.FromBytes(weights), Size: int64(len(weights))}
	body, err := store.Fetch(ctx, blob, 2, 3)
	if err != nil {
		log.Fatal(err)
	}
	defer body.Close()
	part, err := io.ReadAll(body)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", part)
	// Output: 234
}
