// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"
)

// orasPush is what the README of oras-go shows: add files, pack, copy.
func orasPush(ctx context.Context, t task) error {
	repository, tag, err := orasRepository(t.ref)
	if err != nil {
		return err
	}
	store, err := file.New(t.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	var o oras.PackManifestOptions
	for _, e := range entries {
		d, err := store.Add(ctx, e.Name(), "application/octet-stream", "")
		if err != nil {
			return err
		}
		o.Layers = append(o.Layers, d)
	}
	d, err := oras.PackManifest(ctx, store, oras.PackManifestVersion1_1, "application/vnd.unknown.artifact.v1", o)
	if err != nil {
		return err
	}
	if err := store.Tag(ctx, d, tag); err != nil {
		return err
	}
	_, err = oras.Copy(ctx, store, tag, repository, tag, oras.DefaultCopyOptions)
	return err
}

func orasPull(ctx context.Context, t task) error {
	repository, tag, err := orasRepository(t.ref)
	if err != nil {
		return err
	}
	store, err := file.New(t.dir)
	if err != nil {
		return err
	}
	defer store.Close()
	_, err = oras.Copy(ctx, repository, tag, store, tag, oras.DefaultCopyOptions)
	return err
}

func orasRepository(ref string) (*remote.Repository, string, error) {
	r, err := remote.NewRepository(ref)
	if err != nil {
		return nil, "", err
	}
	r.PlainHTTP = true
	return r, r.Reference.Reference, nil
}

// orasManifest reads the manifest of an artifact.
func orasManifest(ctx context.Context, ref string) (*remote.Repository, ocispec.Manifest, error) {
	var m ocispec.Manifest
	r, tag, err := orasRepository(ref)
	if err != nil {
		return nil, m, err
	}
	_, b, err := oras.FetchBytes(ctx, r, tag, oras.DefaultFetchBytesOptions)
	if err != nil {
		return nil, m, err
	}
	return r, m, unmarshal(b, &m)
}
