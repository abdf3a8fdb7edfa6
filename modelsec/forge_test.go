// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"testing"

	"crypto/sha256"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// forgery is an artifact made by somebody who has the keys and does not keep
// to the format: it is signed and granted as it should be. Each layer holds
// one file unless a hook says otherwise. Hooks run in this order.
type forgery struct {
	by      *party
	profile index.Profile
	layers  []forged

	files    func(files []index.File) []index.File // the list, sealed or not
	sealed   func(k int, l, stored []byte) []byte  // segments of layer 0, before they are hashed
	header   func(h *index.Header)                 // the header of the index
	digests  func(d []byte) []byte                 // the digests of all segments
	index    func(b []byte) []byte                 // the encoded index
	manifest func(m *ocispec.Manifest)             // the manifest
	raw      func(b []byte) []byte                 // the encoded manifest
	release  func(r *provenance.Release)           // the release statement
	grant    func(g *encrypt.Grant)                // the grant document
	wrap     func(b *encrypt.Binding)              // what the wrapped key is bound to
	shelf    shelf
	desc     ocispec.Descriptor

	encoded []byte // the manifest
}

type forged struct {
	path, role string
	content    []byte
	tar        bool
}

// twoFiles are the layers of most forgeries.
func twoFiles() []forged {
	return []forged{
		{path: "a.safetensors", role: "weight", content: noise(1, segment+100)},
		{path: "b.safetensors", role: "weight", content: noise(2, segment+100)},
	}
}

// push makes the artifact and tags it v3.
func (f *forgery) push(t testing.TB, o registry.Opener) ocispec.Descriptor {
	t.Helper()
	f.shelf = openShelf(t, o, repository)
	h := index.Header{FormatVersion: 1, Profile: f.profile, SegmentSize: segment}
	key := encrypt.NewKey()
	defer key.Close()
	var id [16]byte
	rand.Read(id[:])
	var digests []byte
	var descs []ocispec.Descriptor
	var files []index.File
	var headers []string
	for i, l := range f.layers {
		g := index.GeometryOf(f.profile, int64(len(l.content)), segment)
		var stored []byte
		var sealer *encrypt.PartSealer
		if f.profile == index.Encrypted {
			sealer = must(encrypt.NewPartSealer(key, encrypt.Part{ArtifactID: id, Layer: uint32(i), Length: g.Content, SegmentSize: segment}))
			head := sealer.Header()
			stored = append(stored, head[:]...)
			headers = append(headers, hex.EncodeToString(head[:]))
		}
		for k := range g.Count() {
			offset, length := g.Range(k)
			s := l.content[offset : offset+length]
			if sealer != nil {
				s = must(sealer.SealSegment(nil, k, s))
			}
			if f.sealed != nil && i == 0 {
				s = f.sealed(int(k), stored, s)
			}
			sum := sha256.Sum256(s)
			digests = append(digests, sum[:]...)
			stored = append(stored, s...)
		}
		d := f.shelf.blob(f.mediaType(l), stored)
		h.Layers = append(h.Layers, index.Layer{Digest: d.Digest, Size: d.Size})
		d.Annotations = f.annotations(i, l)
		descs = append(descs, d)
		files = append(files, index.File{Path: l.path, Role: l.role, Size: g.Content, Runs: []index.Run{{Layer: i, Length: g.Content}}})
	}
	if f.files != nil {
		files = f.files(files)
	}
	if f.profile == index.Plain {
		h.Files = files
	} else {
		commitment := key.Commitment(id)
		h.Encryption = &index.Encryption{ArtifactID: hex.EncodeToString(id[:]), Commitment: hex.EncodeToString(commitment[:]),
			MinWrapClass: "post-quantum", Headers: headers,
			Sealed: must(key.SealIndex(id, must(json.Marshal(index.SealedFiles{Files: files}))))}
	}
	if f.header != nil {
		f.header(&h)
	}
	if f.digests != nil {
		digests = f.digests(digests)
	}
	header := must(json.Marshal(h))
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), append(header, digests...)...)
	if f.index != nil {
		b = f.index(b)
	}
	x := f.shelf.blob(indexType, b)
	x.Annotations = map[string]string{pathKey: indexName}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: modelType,
		Config:      f.shelf.blob(configType, []byte("{}")),
		Layers:      append(descs, x),
		Annotations: map[string]string{profileKey: string(f.profile), indexKey: string(x.Digest)}}
	if f.manifest != nil {
		f.manifest(&m)
	}
	raw := must(json.Marshal(m))
	if f.raw != nil {
		raw = f.raw(raw)
	}
	f.encoded = raw
	f.desc = must(f.shelf.PushManifest(t.Context(), m.MediaType, raw))
	r := provenance.Release{Name: "team/llama", Tags: []string{"v3"}, Sequence: 7, Profile: m.Annotations[profileKey], IndexDigest: m.Layers[len(m.Layers)-1].Digest}
	if r.Profile == "" {
		r.Profile = "plain"
	}
	if f.release != nil {
		f.release(&r)
	}
	f.shelf.bundle(f.desc, release(t, f.by, f.desc.Digest, r))
	if f.profile == index.Encrypted {
		f.pushGrant(t, key, id)
	}
	if err := f.shelf.Tag(t.Context(), f.desc, "v3"); err != nil {
		t.Fatal(err)
	}
	return f.desc
}

func (f *forgery) pushGrant(t testing.TB, key *encrypt.Key, id [16]byte) {
	t.Helper()
	b := encrypt.Binding{ArtifactID: id, Commitment: key.Commitment(id), Manifest: f.desc.Digest}
	g := encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest}
	if f.wrap != nil {
		f.wrap(&b)
		b.Commitment = key.Commitment(b.ArtifactID)
	}
	g.Recipients = must(encrypt.WrapKey(t.Context(), key, b, f.by.identity.Recipient()))
	if f.grant != nil {
		f.grant(&g)
	}
	f.shelf.attach(f.desc, grantType, f.shelf.blob(grantType, must(g.Encode())))
}

func (f *forgery) mediaType(l forged) string {
	switch {
	case f.profile == index.Encrypted:
		return sealedType
	case l.tar:
		return layerType + l.role + ".v1.tar"
	}
	return layerType + l.role + ".v1.raw"
}

func (f *forgery) annotations(i int, l forged) map[string]string {
	name := l.path
	switch {
	case f.profile == index.Encrypted:
		name = fmt.Sprintf("%05d.floe", i+1)
	case l.tar:
		return map[string]string{pathKey: path.Join(".modelsec-packed", l.role+"-00001.tar")}
	}
	return map[string]string{pathKey: name, ocispec.AnnotationTitle: name}
}
