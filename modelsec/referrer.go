// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	godigest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const (
	grantArtifactType = "application/vnd.modelsec.grant.v1+json"

	contentAnnotation   = "dev.sigstore.bundle.content"
	predicateAnnotation = "dev.sigstore.bundle.predicateType"

	maxReferrerManifest = 1 << 20 // one or two layers and some annotations
	maxReferrerBlob     = 4 << 20 // FORMAT.md §11
)

// readBlob fetches and verifies a small blob or manifest.
func readBlob(ctx context.Context, store registry.Store, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size < 0 || d.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes, limit %d", ErrLimit, d.Digest, d.Size, limit)
	}
	body, err := store.Fetch(ctx, d, 0, d.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var b bytes.Buffer
	b.Grow(int(d.Size))
	if n, err := io.Copy(&b, io.LimitReader(body, d.Size+1)); err != nil {
		return nil, err
	} else if n != d.Size {
		return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrDigest, d.Digest, n, d.Size)
	}
	if got := digestOf(b.Bytes()); got != d.Digest {
		return nil, fmt.Errorf("%w: want %s, got %s", ErrDigest, d.Digest, got)
	}
	return b.Bytes(), nil
}

// writeBlob stores a small blob.
func writeBlob(ctx context.Context, store registry.WriteStore, mediaType string, b []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(b), Size: int64(len(b))}
	if ok, err := store.Has(ctx, d); err == nil && ok {
		return d, nil
	}
	if p, ok := store.(registry.Putter); ok {
		// Unlike a stream it is tried again where it fails.
		err := p.Put(ctx, d, bytes.NewReader(b))
		if !errors.Is(err, registry.ErrUploadForm) {
			return d, err
		}
	}
	w, err := store.Create(ctx, d.Size)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		return ocispec.Descriptor{}, err
	}
	return d, w.Commit(ctx, d.Digest)
}

func digestOf(b []byte) godigest.Digest {
	sum := digest.Sum(b)
	return godigest.NewDigestFromBytes(godigest.SHA256, sum[:])
}

// layerBytes is one small layer of a referrer.
type layerBytes struct {
	mediaType string
	b         []byte
}

// pushReferrer stores a small artifact about subject and lists it. One about
// nothing stands for itself.
func pushReferrer(ctx context.Context, store registry.WriteStore, subject ocispec.Descriptor, artifactType string, annotations map[string]string, layers ...layerBytes) (ocispec.Descriptor, error) {
	b, err := makeReferrer(ctx, store, subject, artifactType, annotations, layers...)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return store.PushManifest(ctx, ocispec.MediaTypeImageManifest, b)
}

// makeReferrer stores what a small artifact consists of and returns its
// manifest.
func makeReferrer(ctx context.Context, store registry.WriteStore, subject ocispec.Descriptor, artifactType string, annotations map[string]string, layers ...layerBytes) ([]byte, error) {
	config, err := writeBlob(ctx, store, ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
	if err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       config,
		Annotations:  annotations,
	}
	if subject.Digest != "" {
		m.Subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
	}
	for _, l := range layers {
		d, err := writeBlob(ctx, store, l.mediaType, l.b)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, d)
	}
	return json.Marshal(m)
}

// makeBundle is makeReferrer for an attestation, as cosign stores it. FORMAT.md §9.
func makeBundle(ctx context.Context, store registry.WriteStore, subject ocispec.Descriptor, b *provenance.Bundle) ([]byte, error) {
	st, err := b.Statement()
	if err != nil {
		return nil, err
	}
	return makeReferrer(ctx, store, subject, provenance.BundleMediaType, map[string]string{
		contentAnnotation:   "dsse-envelope",
		predicateAnnotation: st.PredicateType,
	}, layerBytes{provenance.BundleMediaType, b.Bytes()})
}

// pushReferrers lists what makeReferrer made, in this order, at once where the
// store can.
func pushReferrers(ctx context.Context, store registry.WriteStore, manifests [][]byte) (out []ocispec.Descriptor, err error) {
	if p, ok := store.(registry.ReferrerPusher); ok {
		return p.PushReferrers(ctx, manifests...)
	}
	for _, b := range manifests {
		d, err := store.PushManifest(ctx, ocispec.MediaTypeImageManifest, b)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// fetchReferrer reads the manifest of a referrer and demands that it is one of
// subject: the listing is a claim of whoever runs the registry.
func fetchReferrer(ctx context.Context, store registry.Store, d, subject ocispec.Descriptor) (*ocispec.Manifest, error) {
	d.MediaType = ocispec.MediaTypeImageManifest
	b, err := readBlob(ctx, store, d, maxReferrerManifest)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(b)
	if err != nil {
		return nil, err
	}
	if m.Subject == nil || m.Subject.Digest != subject.Digest {
		return nil, fmt.Errorf("%w: %s is not a referrer of %s", ErrFormat, d.Digest, subject.Digest)
	}
	if len(m.Layers) == 0 {
		return nil, fmt.Errorf("%w: referrer %s has no layers", ErrFormat, d.Digest)
	}
	return m, nil
}

// Kinds of referrers, by their own manifest. One with more layers is neither, and
// nobody reads them.
func isBundle(m *ocispec.Manifest) bool {
	return len(m.Layers) == 1 && m.Layers[0].MediaType == provenance.BundleMediaType && (m.ArtifactType == provenance.BundleMediaType || m.ArtifactType == "")
}

func isGrant(m *ocispec.Manifest) bool {
	return len(m.Layers) <= 2 && m.ArtifactType == grantArtifactType && m.Layers[0].MediaType == grantArtifactType
}
