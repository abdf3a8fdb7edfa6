// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containers/ocicrypt"
	"github.com/containers/ocicrypt/config"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

func push(ctx context.Context, name, dir string, key []byte) error {
	cc, err := config.EncryptWithJwe([][]byte{key})
	if err != nil {
		return err
	}
	ref, err := registry.ParseReference(name)
	if err != nil {
		return err
	}
	opened, err := new(registry.Client).Open(ctx, ref.Name)
	if err != nil {
		return err
	}
	store := opened.(registry.WriteStore)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	created := time.Unix(0, 0).UTC()
	image := ocispec.Image{Created: &created, Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers"}}
	for _, e := range entries {
		layer, plain, err := pushLayer(ctx, store, filepath.Join(dir, e.Name()), cc.EncryptConfig)
		if err != nil {
			return err
		}
		manifest.Layers = append(manifest.Layers, layer)
		image.RootFS.DiffIDs = append(image.RootFS.DiffIDs, plain)
	}
	b, err := json.Marshal(image)
	if err != nil {
		return err
	}
	manifest.Config = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := pushBytes(ctx, store, b); err != nil {
		return err
	}
	if b, err = json.Marshal(manifest); err != nil {
		return err
	}
	d, err := store.PushManifest(ctx, manifest.MediaType, b)
	if err != nil {
		return err
	}
	return store.Tag(ctx, d, ref.Tag)
}

// pushLayer encrypts one file into one layer, and returns the digest of the
// file as well.
func pushLayer(ctx context.Context, store registry.WriteStore, file string, ec *config.EncryptConfig) (layer ocispec.Descriptor, plain digest.Digest, err error) {
	f, err := os.Open(file)
	if err != nil {
		return layer, "", err
	}
	defer f.Close()
	if plain, err = digest.FromReader(f); err != nil {
		return layer, "", err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return layer, "", err
	}
	encrypted, finish, err := ocicrypt.EncryptLayer(ec, f, ocispec.Descriptor{Digest: plain})
	if err != nil {
		return layer, "", err
	}
	w, err := store.Create(ctx, -1)
	if err != nil {
		return layer, "", err
	}
	defer w.Close()
	digester := digest.Canonical.Digester()
	size, err := io.CopyBuffer(io.MultiWriter(w, digester.Hash()), encrypted, make([]byte, 1<<20))
	if err != nil {
		return layer, "", err
	}
	if err := w.Commit(ctx, digester.Digest()); err != nil {
		return layer, "", err
	}
	layer = ocispec.Descriptor{MediaType: layerType + encryptedSuffix, Digest: digester.Digest(), Size: size}
	if layer.Annotations, err = finish(); err != nil {
		return layer, "", err
	}
	layer.Annotations[ocispec.AnnotationTitle] = filepath.Base(file)
	return layer, plain, nil
}

func pushBytes(ctx context.Context, store registry.WriteStore, b []byte) error {
	w, err := store.Create(ctx, int64(len(b)))
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		return err
	}
	return w.Commit(ctx, digest.FromBytes(b))
}
