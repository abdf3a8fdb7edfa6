// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestForgeryIsOpenedUnchanged shows that what the tests below change is all
// that is wrong with their artifacts.
func TestForgeryIsOpenedUnchanged(t *testing.T) {
	for _, profile := range []index.Profile{index.Plain, index.Encrypted} {
		p := newParty(t)
		memory := registry.NewMemory()
		(&forgery{by: p, profile: profile, layers: twoFiles()}).push(t, memory)
		if _, err := p.client(memory).Pull(t.Context(), tagged, filepath.Join(t.TempDir(), "model"), p.policy(), nil); err != nil {
			t.Errorf("%s: %v", profile, err)
		}
	}
}

// rename gives the first file another path.
func rename(to string) func([]index.File) []index.File {
	return func(files []index.File) []index.File {
		files[0].Path = to
		return files
	}
}

// TestPathsThatLeaveTheModelAreRefused is the list of names that some system
// understands as a place elsewhere. They are signed by the right key.
func TestPathsThatLeaveTheModelAreRefused(t *testing.T) {
	for name, bad := range map[string]string{
		"Parent":         "../a.safetensors",
		"ParentInside":   "x/../../a",
		"Root":           "/etc/passwd",
		"Dot":            "./a",
		"Empty":          "",
		"EmptyComponent": "x//a",
		"Backslash":      `x\..\..\a`,
		"Drive":          "C:evil",
		"Stream":         "a.txt:hidden",
		"Device":         "aux",
		"DeviceInside":   "x/COM1.txt",
		"DotAtEnd":       "x./a",
		"SpaceAtEnd":     "a ",
		"Control":        "a\x1b[2J",
		"Null":           "a\x00b",
		"Reserved":       ".modelsec-complete",
		"ReservedCase":   ".ModelSec.index",
		"CaseClash":      "B.safetensors",
		"FoldClash":      "b.ſafetensors",
		"Twice":          "b.safetensors",
		"DirectoryOfOne": "b.safetensors/c",
		"Long":           strings.Repeat("a", 256),
	} {
		t.Run(name, func(t *testing.T) {
			for _, profile := range []index.Profile{index.Plain, index.Encrypted} {
				p := newParty(t)
				memory := registry.NewMemory()
				f := &forgery{by: p, profile: profile, layers: twoFiles(), files: rename(bad)}
				if profile == index.Plain {
					f.layers[0].path = bad
				}
				f.push(t, memory)
				pullFails(t, p.client(memory), tagged, p.policy(), modelsec.ErrFormat)
			}
		})
	}
}

// TestIndexThatBreaksARuleIsRefused changes one thing in an artifact that is
// signed by the right key.
func TestIndexThatBreaksARuleIsRefused(t *testing.T) {
	run := func(change func(f *index.File)) func([]index.File) []index.File {
		return func(files []index.File) []index.File {
			change(&files[0])
			return files
		}
	}
	const size = segment + 100
	for name, f := range map[string]*forgery{
		"RunsOverlap": {files: run(func(f *index.File) {
			f.Size, f.Runs = 2*size, []index.Run{{Length: size}, {FileOffset: size, Length: size}}
		})},
		"RunsOfTwoFilesOverlap": {files: func(files []index.File) []index.File {
			files[1].Runs[0] = index.Run{LayerOffset: 50, Length: size - 50}
			files[1].Size = size - 50
			return files
		}},
		"RunBeyondTheLayer":   {files: run(func(f *index.File) { f.Size, f.Runs[0].Length = size+1, size+1 })},
		"RunOfNegativeLength": {files: run(func(f *index.File) { f.Runs[0].Length = -1 })},
		"RunThatOverflows": {files: run(func(f *index.File) {
			f.Size, f.Runs[0].LayerOffset, f.Runs[0].Length = 1<<62, 1<<62, 1<<62
		})},
		"RunOfAnUnknownLayer":   {files: run(func(f *index.File) { f.Runs[0].Layer = 9 })},
		"GapInAFile":            {files: run(func(f *index.File) { f.Runs[0].FileOffset = 1 })},
		"SizeOfAFile":           {files: run(func(f *index.File) { f.Size-- })},
		"EmptyFileWithoutRun":   {files: run(func(f *index.File) { f.Size, f.Runs = 0, nil })},
		"LayerWithoutAFile":     {files: func(files []index.File) []index.File { return files[:1] }},
		"UnknownRole":           {files: run(func(f *index.File) { f.Role = "malware" })},
		"NoFiles":               {files: func([]index.File) []index.File { return nil }},
		"UnknownVersion":        {header: func(h *index.Header) { h.FormatVersion = 2 }},
		"UnknownProfile":        {header: func(h *index.Header) { h.Profile = "open" }},
		"SegmentSizeOfItsOwn":   {header: func(h *index.Header) { h.SegmentSize = segment + 1 }},
		"AnotherSegmentSize":    {header: func(h *index.Header) { h.SegmentSize = 4 * segment }},
		"LayerSize":             {header: func(h *index.Header) { h.Layers[0].Size-- }},
		"LayersSwapped":         {header: func(h *index.Header) { slices.Reverse(h.Layers) }},
		"LayerMissing":          {header: func(h *index.Header) { h.Layers = h.Layers[:1] }},
		"DigestMissing":         {digests: func(d []byte) []byte { return d[32:] }},
		"DigestTooMany":         {digests: func(d []byte) []byte { return append(d, d[:32]...) }},
		"DigestCut":             {digests: func(d []byte) []byte { return d[:len(d)-1] }},
		"KeyTwice":              {index: header(`{"formatVersion":1,`, `{"formatVersion":1,"formatVersion":1,`)},
		"KeyInAnotherCase":      {index: header(`"segmentSize"`, `"SegmentSize"`)},
		"UnknownMember":         {index: header(`{"formatVersion":1,`, `{"formatVersion":1,"x":1,`)},
		"EmptyIndex":            {index: func([]byte) []byte { return nil }},
		"HeaderLongerThanIndex": {index: func(b []byte) []byte { b[2] = 0xff; return b }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, profile := range []index.Profile{index.Plain, index.Encrypted} {
				p := newParty(t)
				memory := registry.NewMemory()
				g := *f
				g.by, g.profile, g.layers = p, profile, twoFiles()
				g.push(t, memory)
				pullFails(t, p.client(memory), tagged, p.policy(), modelsec.ErrFormat)
			}
		})
	}
}

// header replaces text in the JSON part of an index.
func header(old, replacement string) func([]byte) []byte {
	return func(b []byte) []byte {
		end := 8 + int(b[0]) + int(b[1])<<8 + int(b[2])<<16
		h := bytes.Replace(b[8:end], []byte(old), []byte(replacement), 1)
		out := []byte{byte(len(h)), byte(len(h) >> 8), byte(len(h) >> 16), 0, 0, 0, 0, 0}
		return append(append(out, h...), b[end:]...)
	}
}

// TestManifestThatBreaksARuleIsRefused covers K5, K34 and K35: what other tools
// read and what we read must be one thing.
func TestManifestThatBreaksARuleIsRefused(t *testing.T) {
	last := func(m *ocispec.Manifest) *ocispec.Descriptor { return &m.Layers[len(m.Layers)-1] }
	both := []index.Profile{index.Plain, index.Encrypted}
	plain, sealed := both[:1], both[1:]
	for name, test := range map[string]struct {
		profiles []index.Profile
		manifest func(m *ocispec.Manifest)
		raw      func([]byte) []byte
	}{
		"K5IndexWithoutAnnotation":    {both, func(m *ocispec.Manifest) { m.Annotations = nil }, nil},
		"K5AnnotationOfAnotherDigest": {both, func(m *ocispec.Manifest) { m.Annotations[indexKey] = string(m.Layers[0].Digest) }, nil},
		"K5OnlyTheProfileAnnotation":  {both, func(m *ocispec.Manifest) { delete(m.Annotations, indexKey) }, nil},
		"K5IndexTwice":                {both, func(m *ocispec.Manifest) { m.Layers = append(m.Layers, *last(m)) }, nil},
		"K5SecondIndexByPath": {both, func(m *ocispec.Manifest) {
			planted := m.Layers[0]
			planted.Annotations = map[string]string{pathKey: indexName}
			m.Layers = append([]ocispec.Descriptor{planted}, m.Layers...)
		}, nil},
		"K5SecondIndexByTitle": {both, func(m *ocispec.Manifest) {
			m.Layers[0].Annotations[ocispec.AnnotationTitle] = indexName
		}, nil},
		"K5IndexFirst":         {both, func(m *ocispec.Manifest) { slices.Reverse(m.Layers) }, nil},
		"K5IndexUnderAnother":  {both, func(m *ocispec.Manifest) { last(m).Annotations[pathKey] = "README.md" }, nil},
		"K5IndexOfAnotherType": {both, func(m *ocispec.Manifest) { last(m).MediaType = layerType + "weight.v1.raw" }, nil},
		"K34AnnotationSaysEncrypted": {plain, func(m *ocispec.Manifest) {
			m.Annotations[profileKey] = "encrypted"
		}, nil},
		"K34AnnotationSaysPlain": {sealed, func(m *ocispec.Manifest) { m.Annotations[profileKey] = "plain" }, nil},
		"K34OneLayerInTheClear":  {sealed, func(m *ocispec.Manifest) { m.Layers[1].MediaType = layerType + "weight.v1.raw" }, nil},
		"K34LayerUnderAName":     {sealed, func(m *ocispec.Manifest) { m.Layers[0].Annotations[ocispec.AnnotationTitle] = "model" }, nil},
		"K35LayersSwapped": {both, func(m *ocispec.Manifest) {
			m.Layers[0], m.Layers[1] = m.Layers[1], m.Layers[0]
		}, nil},
		"K35LayerAdded":        {both, func(m *ocispec.Manifest) { m.Layers = append(m.Layers[:1:1], m.Layers...) }, nil},
		"K35LayerRemoved":      {both, func(m *ocispec.Manifest) { m.Layers = m.Layers[1:] }, nil},
		"K35PathIsNotTheFiles": {plain, func(m *ocispec.Manifest) { m.Layers[0].Annotations[pathKey] = "c.safetensors" }, nil},
		"K35TitleIsNotThePath": {plain, func(m *ocispec.Manifest) {
			m.Layers[0].Annotations[ocispec.AnnotationTitle] = "c.safetensors"
		}, nil},
		"K35RoleIsNotTheFiles": {plain, func(m *ocispec.Manifest) { m.Layers[0].MediaType = layerType + "code.v1.raw" }, nil},
		"K35RawShownAsArchive": {plain, func(m *ocispec.Manifest) { m.Layers[0].MediaType = layerType + "weight.v1.tar" }, nil},
		"SizeOfALayer":         {both, func(m *ocispec.Manifest) { m.Layers[0].Size++ }, nil},
		"NegativeSize":         {both, func(m *ocispec.Manifest) { m.Layers[0].Size = -1 }, nil},
		"AnotherArtifactType":  {both, func(m *ocispec.Manifest) { m.ArtifactType = "application/vnd.oci.empty.v1+json" }, nil},
		"LayersInAnotherCase": {both, nil, func(b []byte) []byte {
			return bytes.Replace(b, []byte(`{"schemaVersion"`), []byte(`{"Layers":[],"schemaVersion"`), 1)
		}},
		"TooManyLayers": {both, func(m *ocispec.Manifest) {
			m.Layers = append(slices.Repeat(m.Layers[:1], 4096), m.Layers...)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			for _, profile := range test.profiles {
				p := newParty(t)
				memory := registry.NewMemory()
				f := &forgery{by: p, profile: profile, layers: twoFiles(), manifest: test.manifest, raw: test.raw}
				d, ok := pushed(t, f, memory)
				if !ok {
					// The store refused it, and so must we where another does not.
					if _, _, err := modelsec.ParseManifest(f.encoded); !errors.Is(err, modelsec.ErrFormat) {
						t.Errorf("%s: got %v, want ErrFormat", profile, err)
					}
					continue
				}
				err := pullFails(t, p.client(memory), tagged, p.policy(), modelsec.ErrFormat, errPolicy)
				if strings.HasPrefix(name, "K3") && isOneOf(err, errPolicy) {
					t.Errorf("%s: refused by policy for another reason: %v", profile, err)
				}
				if _, err := p.client(memory).Verify(t.Context(), pinned(d), p.policy()); err == nil {
					t.Errorf("%s: Verify admits what Open refuses", profile)
				}
			}
		})
	}
}

// pushed pushes a forgery that the store may refuse.
func pushed(t *testing.T, f *forgery, memory *registry.Memory) (d ocispec.Descriptor, ok bool) {
	defer func() {
		if err, isError := recover().(error); isError {
			if !isOneOf(err, registry.ErrInvalid) {
				t.Fatal(err)
			}
			d, ok = ocispec.Descriptor{}, false
		}
	}()
	return f.push(t, memory), true
}

// TestAlternativeEncodingsAreRefused is K36: one content has one encoding.
func TestAlternativeEncodingsAreRefused(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	// FLOE would accept an empty final segment after full ones.
	f := &forgery{by: p, profile: index.Encrypted, layers: []forged{{path: "a", role: "weight", content: noise(3, segment)}}}
	var padded ocispec.Descriptor
	f.header = func(h *index.Header) {
		blob := f.shelf.read(ocispec.Descriptor{MediaType: sealedType, Digest: h.Layers[0].Digest, Size: h.Layers[0].Size})
		padded = f.shelf.blob(sealedType, append(blob, make([]byte, encrypt.SegmentOverhead)...))
		h.Layers[0] = index.Layer{Digest: padded.Digest, Size: padded.Size}
	}
	f.digests = func(d []byte) []byte { return append(d, d[:32]...) }
	f.manifest = func(m *ocispec.Manifest) { m.Layers[0].Digest, m.Layers[0].Size = padded.Digest, padded.Size }
	f.push(t, memory)
	contains(t, pullFails(t, p.client(memory), tagged, p.policy(), modelsec.ErrFormat), "FLOE message")
}
