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

// layerBytes is a small blob to be stored.
type layerBytes struct {
	desc  ocispec.Descriptor
	b     []byte
	known bool // it may be there already. With what is signed or encrypted in it, none is.
}

func newLayer(mediaType string, b []byte) layerBytes {
	return layerBytes{desc: ocispec.Descriptor{MediaType: mediaType, Digest: digestOf(b), Size: int64(len(b))}, b: b}
}

// writeBlobs stores small blobs, some at a time.
func writeBlobs(ctx context.Context, store registry.WriteStore, blobs []layerBytes) error {
	return parallel(ctx, len(blobs), smallParts, func(ctx context.Context, i int) error {
		return writeBlob(ctx, store, blobs[i])
	})
}

func writeBlob(ctx context.Context, store registry.WriteStore, l layerBytes) error {
	if l.known {
		if ok, err := store.Has(ctx, l.desc); err == nil && ok {
			return nil
		}
	}
	if p, ok := store.(registry.Putter); ok {
		// Unlike a stream it is tried again where it fails.
		err := p.Put(ctx, l.desc, bytes.NewReader(l.b))
		if !errors.Is(err, registry.ErrUploadForm) {
			return err
		}
	}
	w, err := store.Create(ctx, l.desc.Size)
	if err != nil {
		return err
	}
	defer w.Close()
	if _, err := w.Write(l.b); err != nil {
		return err
	}
	return w.Commit(ctx, l.desc.Digest)
}

func digestOf(b []byte) godigest.Digest {
	sum := digest.Sum(b)
	return godigest.NewDigestFromBytes(godigest.SHA256, sum[:])
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
	}, []layerBytes{newLayer(provenance.BundleMediaType, b.Bytes())}}, err
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

// makeReferrers stores what small artifacts about subject consist of and returns
// their manifests.
func makeReferrers(ctx context.Context, store registry.WriteStore, subject ocispec.Descriptor, list ...smallArtifact) (manifests [][]byte, err error) {
	config := newLayer(ocispec.MediaTypeEmptyJSON, ocispec.DescriptorEmptyJSON.Data)
	config.known = true
	var blobs []layerBytes
	if len(list) > 0 {
		blobs = append(blobs, config)
	}
	for _, a := range list {
		m := ocispec.Manifest{
			Versioned:    specs.Versioned{SchemaVersion: 2},
			MediaType:    ocispec.MediaTypeImageManifest,
			ArtifactType: a.artifactType,
			Config:       config.desc,
			Annotations:  a.annotations,
		}
		if subject.Digest != "" {
			m.Subject = &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}
		}
		for _, l := range a.layers {
			m.Layers = append(m.Layers, l.desc)
		}
		blobs = append(blobs, a.layers...)
		b, err := json.Marshal(m)
		if err != nil {
			return nil, err
		}
		manifests = append(manifests, b)
	}
	return manifests, writeBlobs(ctx, store, blobs)
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
