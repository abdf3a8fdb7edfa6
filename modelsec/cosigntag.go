// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
)

// cosignTag reads the attestations of the artifact that cosign 2 listed: the
// layers of the manifest that a tag made of the artifact's digest names. Whoever
// may tag may change it, so it is read as a listing is: what it holds proves
// itself or nothing.
func (a *artifact) cosignTag(ctx context.Context, use func(attestation)) error {
	if !a.c.CosignTags {
		return nil
	}
	layers, err := a.cosignLayers(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case temporary(err):
		return err
	case err != nil:
		a.c.logger().Debug("no attestations of cosign 2", "artifact", a.desc.Digest, "error", err)
		return nil
	}
	var r bundleReader
	return readBundles(ctx, bothEnds(layers, maxBundles), func(d ocispec.Descriptor) (*provenance.Bundle, error) {
		return r.read(ctx, a.store, d, func(b []byte) (*provenance.Bundle, error) {
			return provenance.ParseCosignLayer(b, d.Annotations)
		})
	}, use)
}

// cosignLayers returns the layers under the tag that hold envelopes.
func (a *artifact) cosignLayers(ctx context.Context) ([]ocispec.Descriptor, error) {
	tag := fmt.Sprintf("%s-%s.att", a.desc.Digest.Algorithm(), a.desc.Digest.Encoded())
	d, err := a.store.Resolve(ctx, tag)
	if err != nil {
		return nil, err
	}
	raw, err := readBlob(ctx, a.store, d, maxManifestRead)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(raw)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(m.Layers, func(l ocispec.Descriptor) bool { return l.MediaType != provenance.EnvelopeMediaType }), nil
}
