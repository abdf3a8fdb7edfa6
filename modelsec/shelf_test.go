// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"encoding/json"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// shelf is one repository in the hands of a test.
type shelf struct {
	t testing.TB
	registry.WriteStore
}

func openShelf(t testing.TB, o registry.Opener, name string) shelf {
	t.Helper()
	s, err := o.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return shelf{t, s.(registry.WriteStore)}
}

// read returns the bytes of a blob or manifest.
func (s shelf) read(d ocispec.Descriptor) []byte {
	s.t.Helper()
	body, err := s.Fetch(s.t.Context(), d, 0, d.Size)
	if err != nil {
		s.t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

func (s shelf) manifest(d ocispec.Descriptor) (m ocispec.Manifest) {
	s.t.Helper()
	d.MediaType = ocispec.MediaTypeImageManifest
	if err := json.Unmarshal(s.read(d), &m); err != nil {
		s.t.Fatal(err)
	}
	return m
}

func (s shelf) resolve(ref string) ocispec.Descriptor {
	s.t.Helper()
	d, err := s.Resolve(s.t.Context(), ref)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// referrers lists those of one artifact type, or all.
func (s shelf) referrers(subject ocispec.Descriptor, artifactType string) (list []ocispec.Descriptor) {
	s.t.Helper()
	for d, err := range s.Referrers(s.t.Context(), subject, "") {
		if err != nil {
			s.t.Fatal(err)
		}
		if artifactType == "" || d.ArtifactType == artifactType {
			list = append(list, d)
		}
	}
	return list
}

func (s shelf) blob(mediaType string, b []byte) ocispec.Descriptor {
	s.t.Helper()
	w, err := s.Create(s.t.Context(), int64(len(b)))
	if err != nil {
		s.t.Fatal(err)
	}
	defer w.Close()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if _, err := w.Write(b); err != nil {
		s.t.Fatal(err)
	}
	if err := w.Commit(s.t.Context(), d.Digest); err != nil {
		s.t.Fatal(err)
	}
	return d
}

// put stores a manifest.
func (s shelf) put(m any) ocispec.Descriptor {
	s.t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		s.t.Fatal(err)
	}
	d, err := s.PushManifest(s.t.Context(), ocispec.MediaTypeImageManifest, b)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// attach stores a referrer with the given layers, whatever they are.
func (s shelf) attach(subject ocispec.Descriptor, artifactType string, layers ...ocispec.Descriptor) ocispec.Descriptor {
	s.t.Helper()
	empty := s.blob(ocispec.MediaTypeEmptyJSON, []byte("{}"))
	return s.put(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: empty, Layers: layers,
		Subject: &ocispec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}})
}

// bundle attaches an attestation.
func (s shelf) bundle(subject ocispec.Descriptor, b *provenance.Bundle) ocispec.Descriptor {
	s.t.Helper()
	return s.attach(subject, provenance.BundleMediaType, s.blob(provenance.BundleMediaType, b.Bytes()))
}

// everything lists all blobs and manifests of an artifact with its referrers,
// each with a word for what it is.
func (s shelf) everything(subject ocispec.Descriptor) map[digest.Digest]piece {
	s.t.Helper()
	out := make(map[digest.Digest]piece)
	add := func(what string, d ocispec.Descriptor) {
		out[d.Digest] = piece{what, d, s.read(d)}
	}
	m := s.manifest(subject)
	add("manifest", subject)
	add("config", m.Config)
	for _, l := range m.Layers {
		if l.Annotations[pathKey] == indexName {
			add("index", l)
		} else {
			add("layer", l)
		}
	}
	for _, r := range s.referrers(subject, "") {
		what := "attestation"
		if r.ArtifactType == grantType {
			what = "grant"
		}
		add(what+" manifest", r)
		m := s.manifest(r)
		add("empty config", m.Config)
		for i, l := range m.Layers {
			if i > 0 {
				what += " signature"
			}
			add(what, l)
		}
	}
	return out
}

type piece struct {
	what string
	desc ocispec.Descriptor
	b    []byte
}
