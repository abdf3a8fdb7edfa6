// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// manifestTypes live under manifests/ in a registry; everything else is a
// blob.
var manifestTypes = []string{
	ocispec.MediaTypeImageManifest,
	ocispec.MediaTypeImageIndex,
	"application/vnd.docker.distribution.manifest.v2+json",
	"application/vnd.docker.distribution.manifest.list.v2+json",
}

func isManifest(mediaType string) bool { return slices.Contains(manifestTypes, mediaType) }

// manifest is what a store must know of one. Layers stay undecoded: a
// million empty objects fit into 4 MiB and would take a hundred times that as
// descriptors.
type manifest struct {
	MediaType    string              `json:"mediaType"`
	ArtifactType string              `json:"artifactType"`
	Config       *manifestConfig     `json:"config"`
	Layers       json.RawMessage     `json:"layers"`
	FSLayers     json.RawMessage     `json:"fsLayers"`
	Manifests    json.RawMessage     `json:"manifests"`
	Subject      *ocispec.Descriptor `json:"subject"`
	Annotations  json.RawMessage     `json:"annotations"`
}

type manifestConfig struct {
	MediaType string `json:"mediaType"`
}

// parseManifest decodes b, which was served or pushed as mediaType (empty:
// unknown), and describes it. Documents that can be read as two things are
// refused (CVE-2021-41190).
func parseManifest(mediaType string, b []byte) (manifest, ocispec.Descriptor, error) {
	var m manifest
	if len(b) > maxManifest {
		return m, ocispec.Descriptor{}, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrLimit, len(b), maxManifest)
	}
	if err := strictjson.UnmarshalLenient(b, &m, maxManifest); err != nil {
		return m, ocispec.Descriptor{}, fmt.Errorf("%w: manifest: %w", ErrInvalid, err)
	}
	if m.Manifests != nil && (m.Layers != nil || m.Config != nil || m.FSLayers != nil) {
		return m, ocispec.Descriptor{}, fmt.Errorf("%w: both a manifest and an index", ErrInvalid)
	}
	if mediaType != "" && m.MediaType != "" && mediaType != m.MediaType {
		return m, ocispec.Descriptor{}, fmt.Errorf("%w: served as %.100q, but says %.100q", ErrInvalid, mediaType, m.MediaType)
	}
	if mediaType == "" {
		mediaType = m.MediaType
	}
	if mediaType == "" && m.Layers != nil {
		mediaType = ocispec.MediaTypeImageManifest
	}
	if mediaType == "" && m.Manifests != nil {
		mediaType = ocispec.MediaTypeImageIndex
	}
	if !isManifest(mediaType) {
		return m, ocispec.Descriptor{}, fmt.Errorf("%w: media type %.100q is not that of a manifest", ErrInvalid, mediaType)
	}
	if index := strings.Contains(mediaType, "index") || strings.Contains(mediaType, "list"); index && m.Layers != nil || !index && m.Manifests != nil {
		return m, ocispec.Descriptor{}, fmt.Errorf("%w: %s with the fields of another type", ErrInvalid, mediaType)
	}
	if m.Subject != nil {
		if err := checkDigest(m.Subject.Digest); err != nil {
			return m, ocispec.Descriptor{}, fmt.Errorf("%w: subject: %w", ErrInvalid, err)
		}
	}
	return m, ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b)), ArtifactType: m.ArtifactType}, nil
}

// referrer is the descriptor under which a manifest is listed for its subject
// (distribution-spec 1.1, "Listing Referrers"). Annotations too large for a
// listing are left out of it.
func (m manifest) referrer(d ocispec.Descriptor) ocispec.Descriptor {
	if d.ArtifactType == "" && m.Config != nil {
		d.ArtifactType = m.Config.MediaType
	}
	if len(m.Annotations) > maxAnnotations {
		return d
	}
	if err := json.Unmarshal(m.Annotations, &d.Annotations); err != nil {
		d.Annotations = nil
	}
	return d
}

// parseIndex decodes a listing of at most maxReferrers descriptors.
func parseIndex(b []byte) (ocispec.Index, error) {
	var index ocispec.Index
	// A descriptor of twenty bytes takes ten times that in memory, so braces
	// are counted first; one entry has at most four (itself, annotations,
	// platform, and one to spare).
	if n := bytes.Count(b, []byte{'{'}); n > 1+4*maxReferrers {
		return index, fmt.Errorf("%w: listing with %d objects", ErrLimit, n)
	}
	if err := strictjson.UnmarshalLenient(b, &index, maxListing); err != nil {
		return index, fmt.Errorf("%w: listing: %w", ErrInvalid, err)
	}
	if len(index.Manifests) > maxReferrers {
		return index, fmt.Errorf("%w: listing with %d entries, limit %d", ErrLimit, len(index.Manifests), maxReferrers)
	}
	if index.MediaType != "" && index.MediaType != ocispec.MediaTypeImageIndex {
		return index, fmt.Errorf("%w: listing says it is %.100q", ErrInvalid, index.MediaType)
	}
	return index, nil
}

// marshalIndex is the form in which this package writes listings.
func marshalIndex(manifests []ocispec.Descriptor) ([]byte, error) {
	if manifests == nil {
		manifests = []ocispec.Descriptor{}
	}
	return json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: manifests})
}

// checkPush is parseManifest for a manifest about to be stored: its type must
// be named, so that every reader learns the same one.
func checkPush(mediaType string, b []byte) (manifest, ocispec.Descriptor, error) {
	if !isManifest(mediaType) {
		return manifest{}, ocispec.Descriptor{}, fmt.Errorf("%w: media type %.100q is not that of a manifest", ErrInvalid, mediaType)
	}
	return parseManifest(mediaType, b)
}
