// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// foreign pushes an artifact as other ModelPack tools do, signed by p with a
// statement of cosign's.
func foreign(t *testing.T, p *party, o registry.Opener, layers []forged, change func(m *ocispec.Manifest)) ocispec.Descriptor {
	t.Helper()
	return foreignAt(t, p, o, repository, layers, change)
}

func foreignAt(t *testing.T, p *party, o registry.Opener, name string, layers []forged, change func(m *ocispec.Manifest)) ocispec.Descriptor {
	t.Helper()
	s := openShelf(t, o, name)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: modelType,
		Config: s.blob(configType, []byte("{}"))}
	for _, l := range layers {
		kind := ".v1.raw"
		if l.tar {
			kind = ".v1.tar"
		}
		d := s.blob(layerType+l.role+kind, l.content)
		d.Annotations = map[string]string{pathKey: l.path}
		m.Layers = append(m.Layers, d)
	}
	if change != nil {
		change(&m)
	}
	d := s.put(m)
	s.bundle(d, signed(t, p, d.Digest, provenance.Statement{PredicateType: provenance.PredicateCosignSign, Predicate: []byte("{}")}))
	return d
}

func (p *party) unindexed() provenance.Policy {
	policy := p.policy()
	policy.Rules[0].AllowUnindexed = true
	return policy
}

// TestUnindexedArtifactIsRefusedByDefault is K25.
func TestUnindexedArtifactIsRefusedByDefault(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := foreign(t, p, memory, twoFiles(), nil)
	pullFails(t, p.client(memory), pinned(d), p.policy(), modelsec.ErrFormat, errPolicy)
	if _, err := p.client(memory).Verify(t.Context(), pinned(d), p.policy()); err == nil {
		t.Error("Verify admits what Open refuses")
	}
	c := p.client(memory)
	c.MemoryLimit = 8 << 20
	dest := filepath.Join(t.TempDir(), "model")
	if _, err := c.Pull(t.Context(), pinned(d), dest, p.unindexed(), nil); err != nil {
		t.Fatal(err)
	}
	want := make(fstest.MapFS)
	for _, l := range twoFiles() {
		want[l.path] = &fstest.MapFile{Data: l.content}
	}
	sameFiles(t, dest, want)
	if _, err := c.Verify(t.Context(), pinned(d), p.unindexed()); err != nil {
		t.Error(err)
	}
	if held, lent := c.Held(); held != 0 || lent != 0 {
		t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
	}
}

// TestUnindexedContentIsComparedWhole: nothing is released before the digest of
// its layer matched.
func TestUnindexedContentIsComparedWhole(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := foreign(t, p, memory, twoFiles(), nil)
	m := openShelf(t, memory, repository).manifest(d)
	for _, damage := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { clear(b); return b },
	} {
		bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
			if d.Digest == m.Layers[1].Digest {
				return damage(bytes.Clone(b))
			}
			return b
		}}
		inBubble(t, func(t *testing.T) {
			c := p.client(bad)
			c.MemoryLimit = 8 << 20
			pullFails(t, c, pinned(d), p.unindexed(), modelsec.ErrDigest, errTruncated)
			if m, err := c.Open(t.Context(), pinned(d), p.unindexed()); err == nil {
				m.Close()
				t.Error("Open released files of a damaged artifact")
			}
		})
	}
}

// TestUnindexedNamesFollowTheRules: of paths, and of what an index is.
func TestUnindexedNamesFollowTheRules(t *testing.T) {
	for name, test := range map[string]struct {
		layers []forged
		change func(m *ocispec.Manifest)
	}{
		"Parent":  {layers: []forged{{path: "../x", role: "weight", content: []byte("x")}}},
		"Root":    {layers: []forged{{path: "/x", role: "weight", content: []byte("x")}}},
		"NoName":  {layers: []forged{{path: "", role: "weight", content: []byte("x")}}},
		"Archive": {layers: []forged{{path: "x.tar", role: "weight", content: []byte("x"), tar: true}}},
		"Twice":   {layers: []forged{{path: "x", role: "weight", content: []byte("x")}, {path: "X", role: "weight", content: []byte("y")}}},
		"Role":    {layers: []forged{{path: "x", role: "malware", content: []byte("x")}}},
		"Type": {layers: twoFiles(), change: func(m *ocispec.Manifest) {
			m.Layers[0].MediaType = "application/octet-stream"
		}},
		"K5Index":   {layers: []forged{{path: indexName, role: "doc", content: []byte("x")}}},
		"K5Profile": {layers: twoFiles(), change: func(m *ocispec.Manifest) { m.Annotations = map[string]string{profileKey: "plain"} }},
		"NoLayers":  {},
		"Size":      {layers: twoFiles(), change: func(m *ocispec.Manifest) { m.Layers[0].Size = 1 << 62 }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParty(t)
			memory := registry.NewMemory()
			d := foreign(t, p, memory, test.layers, test.change)
			c := p.client(memory)
			c.MemoryLimit = 8 << 20
			pullFails(t, c, pinned(d), p.unindexed(), modelsec.ErrFormat)
		})
	}
}

// TestUnindexedSpoolIsPrivate: what was downloaded has no name that others could
// open, and is gone with the model.
func TestUnindexedSpoolIsPrivate(t *testing.T) {
	spool := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		t.Setenv(name, spool)
	}
	if os.TempDir() != spool {
		t.Fatalf("temporary files are in %s", os.TempDir())
	}
	p := newParty(t)
	memory := registry.NewMemory()
	d := foreign(t, p, memory, twoFiles(), nil)
	c := p.client(memory)
	c.MemoryLimit = 8 << 20
	m, err := c.Open(t.Context(), pinned(d), p.unindexed())
	if err != nil {
		t.Fatal(err)
	}
	nothingIn(t, spool)
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	nothingIn(t, spool)
}

// TestOtherArtifactsAreNotModels: an image index, an image, something that is
// both.
func TestOtherArtifactsAreNotModels(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	s := openShelf(t, memory, repository)
	config := s.blob("application/vnd.oci.image.config.v1+json", []byte("{}"))
	image := s.put(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{config}})
	list, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageIndex, must(jsonOf(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{image}})))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []ocispec.Descriptor{image, list} {
		pullFails(t, p.client(memory), pinned(d), provenance.UnsafeAcceptUnsigned("a test"), modelsec.ErrFormat)
	}
	pullFails(t, p.client(memory), repository+":none", p.policy(), registry.ErrNotFound)
	pullFails(t, p.client(memory), repository, p.policy(), modelsec.ErrConfig)
	pullFails(t, p.client(memory), "not a reference", p.policy(), modelsec.ErrConfig)
}
