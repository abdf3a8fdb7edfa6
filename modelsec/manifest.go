// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// Names of FORMAT.md §2.
const (
	artifactType    = "application/vnd.cncf.model.manifest.v1+json"
	configMediaType = "application/vnd.cncf.model.config.v1+json"
	layerMediaType  = "application/vnd.cncf.model."
	indexMediaType  = "application/vnd.cncf.model.doc.v1.raw"
	sealedMediaType = "application/vnd.cncf.model.weight.v1.raw+floe"
	rawSuffix       = ".v1.raw"
	tarSuffix       = ".v1.tar"

	profileAnnotation  = "io.github.modelsec.profile"
	indexAnnotation    = "io.github.modelsec.index"
	filepathAnnotation = "org.cncf.model.filepath"
	metadataAnnotation = "org.cncf.model.file.metadata+json"
	indexPath          = index.Reserved + ".index"

	maxManifestRead  = 4 << 20
	maxManifestWrite = 2 << 20
	maxManifestLayer = 4096
	maxConfig        = 1 << 20
)

// Config is what the ModelPack config of a plain artifact says about the
// model. Empty fields are left out; Name defaults to the name of the model and
// Format to what the weight files are.
type Config struct {
	Name, Version, Format, Architecture, Family string
	Licenses                                    []string
}

// modelConfig is the ModelPack config, members in the order of its schema.
type modelConfig struct {
	Descriptor configDescriptor `json:"descriptor"`
	Config     configModel      `json:"config"`
	ModelFS    configFS         `json:"modelfs"`
}

type configDescriptor struct {
	Family   string   `json:"family,omitempty"`
	Name     string   `json:"name"`
	Version  string   `json:"version,omitempty"`
	Licenses []string `json:"licenses,omitempty"`
}

type configModel struct {
	Architecture string `json:"architecture,omitempty"`
	Format       string `json:"format"`
}

type configFS struct {
	Type    string          `json:"type"`
	DiffIDs []digest.Digest `json:"diffIds"`
}

// fileMetadata is the ModelPack annotation about a file. FORMAT.md §2.2.
type fileMetadata struct {
	Name     string `json:"name"`
	Mode     uint32 `json:"mode"`
	UID      uint32 `json:"uid"`
	GID      uint32 `json:"gid"`
	Size     int64  `json:"size"`
	ModTime  string `json:"mtime"`
	TypeFlag byte   `json:"typeflag"`
}

// encodeConfig writes the config. In the encrypted profile it is neutral.
func encodeConfig(profile index.Profile, c Config, layers []ocispec.Descriptor) ([]byte, error) {
	m := modelConfig{
		Descriptor: configDescriptor{Family: c.Family, Name: c.Name, Version: c.Version, Licenses: c.Licenses},
		Config:     configModel{Architecture: c.Architecture, Format: c.Format},
		ModelFS:    configFS{Type: "layers"},
	}
	if profile == index.Encrypted {
		m.Descriptor, m.Config = configDescriptor{Name: "encrypted"}, configModel{Format: "floe"}
	}
	for _, l := range layers {
		m.ModelFS.DiffIDs = append(m.ModelFS.DiffIDs, l.Digest)
	}
	return json.Marshal(m)
}

// formatOf names the format of the weights for tools that choose by it.
func formatOf(files []sourceFile) string {
	for _, f := range files {
		if f.role == "weight" {
			return strings.TrimPrefix(path.Ext(strings.ToLower(f.path)), ".")
		}
	}
	return "other"
}

// describeLayer makes the descriptor of content layer i. FORMAT.md §2.2, §2.3.
func describeLayer(profile index.Profile, i int, l layerPlan, d digest.Digest, size int64) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{Digest: d, Size: size}
	if profile == index.Encrypted {
		desc.MediaType = sealedMediaType
		name := sealedName(i)
		desc.Annotations = map[string]string{filepathAnnotation: name, ocispec.AnnotationTitle: name}
		return desc, nil
	}
	desc.MediaType = layerMediaType + l.role + rawSuffix
	if l.packed {
		desc.MediaType = layerMediaType + l.role + tarSuffix
	}
	var err error
	if desc.Annotations, err = plainAnnotations(l.name, size); err == nil && !l.packed {
		desc.Annotations[ocispec.AnnotationTitle] = l.name
	}
	return desc, err
}

// describeIndex makes the descriptor of the index layer. FORMAT.md §2.4.
func describeIndex(profile index.Profile, d digest.Digest, size int64) (ocispec.Descriptor, error) {
	desc := ocispec.Descriptor{MediaType: indexMediaType, Digest: d, Size: size,
		Annotations: map[string]string{filepathAnnotation: indexPath}}
	if profile == index.Encrypted {
		return desc, nil
	}
	var err error
	desc.Annotations, err = plainAnnotations(indexPath, size)
	return desc, err
}

func plainAnnotations(name string, size int64) (map[string]string, error) {
	meta, err := json.Marshal(fileMetadata{Name: path.Base(name), Mode: 0o644, Size: size, ModTime: "1970-01-01T00:00:00Z"})
	return map[string]string{filepathAnnotation: name, metadataAnnotation: string(meta)}, err
}

func sealedName(i int) string { return fmt.Sprintf("%05d.floe", i+1) }

// encodeManifest writes the manifest. FORMAT.md §2.
func encodeManifest(profile index.Profile, config ocispec.Descriptor, layers []ocispec.Descriptor) ([]byte, error) {
	b, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       config,
		Layers:       layers,
		Annotations: map[string]string{
			profileAnnotation: string(profile),
			indexAnnotation:   string(layers[len(layers)-1].Digest),
		},
	})
	if err == nil && len(b) > maxManifestWrite {
		err = fmt.Errorf("%w: a manifest of %d bytes, registries take %d", ErrLimit, len(b), maxManifestWrite)
	}
	return b, err
}

// parseManifest reads a model manifest and holds it to FORMAT.md §2 as far as
// that needs no index. It says whether the artifact has one.
func parseManifest(b []byte) (*ocispec.Manifest, bool, error) {
	m, err := decodeManifest(b)
	if err != nil {
		return nil, false, err
	}
	if m.ArtifactType != artifactType || m.Config.MediaType != configMediaType {
		return nil, false, fmt.Errorf("%w: not a model: artifact type %q, config %q", ErrFormat, clip(m.ArtifactType), clip(m.Config.MediaType))
	}
	if len(m.Layers) == 0 {
		return nil, false, fmt.Errorf("%w: no layers", ErrFormat)
	}
	named, annotated := m.Annotations[indexAnnotation], m.Annotations[indexAnnotation] != "" || m.Annotations[profileAnnotation] != ""
	last := m.Layers[len(m.Layers)-1]
	byDigest, byPath := 0, 0
	for _, l := range m.Layers {
		if string(l.Digest) == named {
			byDigest++
		}
		if l.Annotations[filepathAnnotation] == indexPath || l.Annotations[ocispec.AnnotationTitle] == indexPath {
			byPath++
		}
	}
	if !annotated && byPath == 0 {
		return m, false, nil
	}
	// K5: a file name inside the content never makes an index.
	if byDigest != 1 || byPath != 1 || string(last.Digest) != named || last.Annotations[filepathAnnotation] != indexPath || last.MediaType != indexMediaType {
		return nil, false, fmt.Errorf("%w: the index must be the last layer, named once by its path and once by the manifest annotation", ErrFormat)
	}
	return m, true, nil
}

// decodeManifest reads any OCI image manifest within bounds.
func decodeManifest(b []byte) (*ocispec.Manifest, error) {
	var m struct {
		ocispec.Manifest
		Manifests json.RawMessage `json:"manifests"`
	}
	if err := strictjson.UnmarshalLenient(b, &m, maxManifestRead); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	if m.MediaType != ocispec.MediaTypeImageManifest || m.Manifests != nil || m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: %q is not an image manifest", ErrFormat, clip(m.MediaType))
	}
	if len(m.Layers) > maxManifestLayer {
		return nil, fmt.Errorf("%w: %d layers, limit %d", ErrFormat, len(m.Layers), maxManifestLayer)
	}
	for _, d := range append(slices.Clone(m.Layers), m.Config) {
		if err := index.CheckDigest(d.Digest); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if d.Size < 0 {
			return nil, fmt.Errorf("%w: layer of %d bytes", ErrFormat, d.Size)
		}
	}
	return &m.Manifest, nil
}

// checkLayers holds the manifest to its index: K34 and K35.
func checkLayers(m *ocispec.Manifest, x *index.Index) error {
	content := m.Layers[:len(m.Layers)-1]
	if profile := m.Annotations[profileAnnotation]; profile != string(x.Profile) {
		return fmt.Errorf("%w: the manifest says profile %q, the index %q", ErrFormat, clip(profile), x.Profile)
	}
	if len(content) != len(x.Layers) {
		return fmt.Errorf("%w: the index does not cover this artifact: %d layers, the manifest has %d", ErrFormat, len(x.Layers), len(content))
	}
	for i, l := range content {
		if l.Digest != x.Layers[i].Digest || l.Size != x.Layers[i].Size {
			return fmt.Errorf("%w: the index does not cover this artifact: layer %d differs", ErrFormat, i)
		}
	}
	if x.Profile == index.Encrypted {
		for i, l := range content {
			name := sealedName(i)
			if l.MediaType != sealedMediaType || l.Annotations[filepathAnnotation] != name || l.Annotations[ocispec.AnnotationTitle] != name {
				return fmt.Errorf("%w: layer %d is not an encrypted layer named %s", ErrFormat, i, name)
			}
		}
		return nil
	}
	return checkPlainLayers(content, x)
}

// checkPlainLayers holds what other tools read, path and role in the manifest,
// to what we read. FORMAT.md §5.1.
func checkPlainLayers(content []ocispec.Descriptor, x *index.Index) error {
	packed := make(map[string]int)
	for i, pieces := range index.ByLayer(x.Files, len(x.Layers)) {
		l := content[i]
		f := x.Files[pieces[0].File]
		name, mediaType, title := f.Path, layerMediaType+f.Role+rawSuffix, true
		if l.MediaType == layerMediaType+f.Role+tarSuffix {
			for _, p := range pieces {
				if g := x.Files[p.File]; g.Role != f.Role || len(g.Runs) != 1 {
					return fmt.Errorf("%w: packed layer %d holds %q, which is of another role or split", ErrFormat, i, clip(g.Path))
				}
			}
			name, mediaType, title = packedName(f.Role, packed[f.Role]), l.MediaType, false
			packed[f.Role]++
		} else if len(pieces) != 1 || pieces[0].LayerOffset != 0 || pieces[0].Length != x.Geometry(i).Content {
			return fmt.Errorf("%w: layer %d is not exactly one run of one file", ErrFormat, i)
		} else if len(f.Runs) > 1 {
			name = partName(f.Path, slices.IndexFunc(f.Runs, func(r index.Run) bool { return r.Layer == i }))
		}
		gotTitle, hasTitle := l.Annotations[ocispec.AnnotationTitle]
		if l.MediaType != mediaType || l.Annotations[filepathAnnotation] != name || hasTitle != title || (title && gotTitle != name) {
			return fmt.Errorf("%w: layer %d is shown as %q of type %q, the index says %q of type %q", ErrFormat, i,
				clip(l.Annotations[filepathAnnotation]), clip(l.MediaType), name, mediaType)
		}
	}
	return nil
}

// clip bounds text of the artifact for a message, and leaves out what a terminal
// may act upon or what turns text around.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:120], "") + "…"
	}
	return s
}
