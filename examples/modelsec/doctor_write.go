// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

// probeType keeps the manifest of doctor --write apart from models.
const probeType = "application/vnd.modelsec.doctor.v1+json"

// deletion finds out whether revoke can do its work.
func (x *examination) deletion(ctx context.Context, store registry.Store, write bool) {
	if !write {
		x.note("push", checkUnknown, "--write tries it", "not tried")
		x.note("delete", checkUnknown, "--write tries it", "not tried")
		return
	}
	w, ok := store.(registry.WriteStore)
	if !ok {
		x.note("push", checkFail, "", "%s cannot be written", x.ref.Name)
		return
	}
	d, err := pushProbe(ctx, w)
	if err != nil {
		x.failed("push", err)
		return
	}
	x.note("push", checkOK, "", "a manifest and a blob")
	switch err := w.Delete(ctx, d); {
	case errors.Is(err, registry.ErrUnsupported):
		x.note("delete", checkWarn, "revoke needs it: turn deletion on at the registry", "the registry does not delete; %s stays there", d.Digest)
	case err != nil:
		x.note("delete", checkWarn, "revoke needs it: use an account that may delete", "%v; %s stays there", err, d.Digest)
	default:
		x.note("delete", checkOK, "", "a manifest")
	}
}

// pushProbe pushes a manifest that nothing else has.
func pushProbe(ctx context.Context, store registry.WriteStore) (ocispec.Descriptor, error) {
	empty := ocispec.DescriptorEmptyJSON
	w, err := store.Create(ctx, empty.Size)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.Close()
	if _, err := w.Write(empty.Data); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := w.Commit(ctx, empty.Digest); err != nil {
		return ocispec.Descriptor{}, err
	}
	empty.Data = nil
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: probeType, Config: empty, Layers: []ocispec.Descriptor{empty},
		Annotations: map[string]string{"org.modelsec.doctor": rand.Text()}}
	m.SchemaVersion = 2
	text, err := json.Marshal(m)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := store.PushManifest(ctx, m.MediaType, text)
	d.MediaType, d.Digest, d.Size = m.MediaType, digest.FromBytes(text), int64(len(text))
	return d, err
}
