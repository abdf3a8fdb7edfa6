// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"
)

// pullLayers is how many layers containerd fetches at a time by default.
const pullLayers = 3

// pull does to every layer what container runtimes do: it fetches the layer as
// one stream, compares its digest, decrypts it and compares its HMAC.
func pull(ctx context.Context, ref, dir string, key []byte) error {
	cc, err := config.DecryptWithPrivKeys([][]byte{key}, [][]byte{nil})
	if err != nil {
		return err
	}
	repository, err := remote.NewRepository(ref)
	if err != nil {
		return err
	}
	repository.PlainHTTP = true
	_, b, err := oras.FetchBytes(ctx, repository, repository.Reference.Reference, oras.DefaultFetchBytesOptions)
	if err != nil {
		return err
	}
	var manifest ocispec.Manifest
	if err := json.Unmarshal(b, &manifest); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(pullLayers)
	for _, layer := range manifest.Layers {
		group.Go(func() error {
			return pullLayer(ctx, repository, layer, dir, cc.DecryptConfig)
		})
	}
	return group.Wait()
}

func pullLayer(ctx context.Context, repository *remote.Repository, layer ocispec.Descriptor, dir string, dc *config.DecryptConfig) error {
	body, err := repository.Blobs().Fetch(ctx, layer)
	if err != nil {
		return err
	}
	defer body.Close()
	verifier := layer.Digest.Verifier()
	plain, _, err := ocicrypt.DecryptLayer(dc, io.TeeReader(body, verifier), layer, false)
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, filepath.Base(layer.Annotations[ocispec.AnnotationTitle])))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, plain, make([]byte, 1<<20)); err != nil {
		return err
	}
	if !verifier.Verified() {
		return fmt.Errorf("layer is not %s", layer.Digest)
	}
	return f.Close()
}
