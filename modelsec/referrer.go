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

// ensureBlob stores a small blob, unless it is there already.
func ensureBlob(ctx context.Context, store registry.WriteStore, mediaType string, b []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(b), Size: int64(len(b))}
	if ok, err := store.Has(ctx, d); err == nil && ok {
		return d, nil
	}
	return writeBlob(ctx, store, mediaType, b)
}

// writeBlob stores a small blob without asking whether it is there: with what is
// signed or encrypted in it, no two pushes make the same.
func writeBlob(ctx context.Context, store registry.WriteStore, mediaType string, b []byte) (ocispec.Descriptor, error) {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(b), Size: int64(len(b))}
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

// smallArtifact is what a referrer consists of.
type smallArtifact struct {
	artifactType string
	annotations  map[string]string
	layers       []layerBytes
}

// bundleArtifact has an attestation, as cosign stores it. FORMAT.md §9.
func bundleArtifact(b *provenance.Bundle) (smallArtifact, error) {
	st, err := b.Statement()
	return smallArtifact{provenance.BundleMediaType, map[string]string{
		contentAnnotation:   "dsse-envelope",
		predicateAnnotation: st.PredicateType,
	}, []layerBytes{{provenance.BundleMediaType, b.Bytes()}}}, err
}

// pushReferrer stores a small artifact about subject and lists it. One about
// nothing stands for itself.
func pushReferrer(ctx context.Context, store registry.WriteStore, subject ocispec.Descriptor, a smallArtifact) (ocispec.Descriptor, error) {
	manifests, err := makeReferrers(ctx, store, subject, a)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return store.PushManifest(ctx, ocispec.MediaTypeImageManifest, manifests[0])
}

// makeReferrers stores what small artifacts about subject consist of, some blobs
// at a time, and returns their manifests.
func makeReferrers(ctx context.Context, store registry.WriteStore, subject ocispec.Descriptor, list ...smallArtifact) (manifests [][]byte, err error) {
	var stored []func(context.Context) error
	var made []*ocispec.Manifest
	for _, a := range list {
		m := &ocispec.Manifest{
			Versioned:    specs.Versioned{SchemaVersion: 2},
			MediaType:    ocispec.MediaTypeImageManifest,
			ArtifactType: a.artifactType,
			Config:       ocispec.Descriptor{MediaType: ocispec.MediaTypeEmptyJSON, Digest: ocispec.DescriptorEmptyJSON.Digest, Size: ocispec.DescriptorEmptyJSON.Size},
			Annotations:  a.annotations,
			Layers:       make([]ocispec.Descriptor, len(a.layers)),
		}
		if subject.Digest != "" {
			m.Subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
		}
		for i, l := range a.layers {
			stored = append(stored, func(ctx context.Context) (err error) {
				m.Layers[i], err = writeBlob(ctx, store, l.mediaType, l.b)
				return err
			})
		}
		made = append(made, m)
	}
	if len(list) > 0 {
		stored = append(stored, func(ctx context.Context) error {
			_, err := ensureBlob(ctx, store, ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
			return err
		})
	}
	if err := parallel(ctx, len(stored), smallParts, func(ctx context.Context, i int) error { return stored[i](ctx) }); err != nil {
		return nil, err
	}
	for _, m := range made {
		b, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, b)
	}
	return manifests, nil
}

// pushReferrers lists what makeReferrers made, in this order, at once where the
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

// Kinds of referrers, by their own manifest. One with more layers is neither, and
// nobody reads them.
func isBundle(m *ocispec.Manifest) bool {
	return len(m.Layers) == 1 && m.Layers[0].MediaType == provenance.BundleMediaType && (m.ArtifactType == provenance.BundleMediaType || m.ArtifactType == "")
}

func isGrant(m *ocispec.Manifest) bool {
	return len(m.Layers) <= 2 && m.ArtifactType == grantArtifactType && m.Layers[0].MediaType == grantArtifactType
}
