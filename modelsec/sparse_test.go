// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// sparse is an artifact whose content is made when it is read, so that it can
// be larger than this machine. Segments that real does not admit are noise: the
// index has digests for them that nothing matches.
type sparse struct {
	by          *party
	profile     index.Profile
	segmentSize int64
	files       []sparseFile
	real        func(file int, offset int64) bool // by the first byte of a segment in its file

	layers map[digest.Digest]*sparseLayer

	mu    sync.Mutex
	asked []asked // requests for layers so far
}

// take returns the requests since the last call.
func (s *sparse) take() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.asked
	s.asked = nil
	return out
}

// segments lists the segments that a request covers by their offset in the
// file, and fails where it covers one in part.
func (a asked) segments(t *testing.T) (offsets []int64) {
	t.Helper()
	end := a.offset
	for k := range a.layer.geometry.Count() {
		if at, n := a.layer.geometry.Stored(k); at >= a.offset && at+n <= a.offset+a.n {
			start, _ := a.layer.geometry.Range(k)
			offsets, end = append(offsets, a.layer.offset+start), at+n
		}
	}
	if len(offsets) == 0 || end != a.offset+a.n {
		t.Errorf("a request for %d bytes at %d is not for whole segments", a.n, a.offset)
	}
	return offsets
}

// sparseFile is one file, cut into layers of at most half a GiB.
type sparseFile struct {
	path string
	size int64
	at   func(p []byte, offset int64) // fills p with what is at offset
}

type sparseLayer struct {
	*sparse
	file, ordinal int
	offset        int64 // in the file
	geometry      index.Geometry
	sealer        *encrypt.PartSealer

	mu     sync.Mutex
	stored map[int64][]byte // sealed segments: none is sealed twice
}

// segment returns a stored segment, or nil where it is noise.
func (l *sparseLayer) segment(k int64) []byte {
	start, length := l.geometry.Range(k)
	if !l.real(l.file, l.offset+start) {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if b, ok := l.stored[k]; ok {
		return b
	}
	b := make([]byte, length)
	l.files[l.file].at(b, l.offset+start)
	if l.sealer != nil {
		b = must(l.sealer.SealSegment(nil, k, b))
		l.stored[k] = b
	}
	return b
}

// ReadAt reads the stored form of the layer, which is sought by segments.
func (l *sparseLayer) ReadAt(p []byte, offset int64) (n int, err error) {
	for n < len(p) && offset < l.geometry.Blob() {
		k := offset / l.segmentSize
		if l.sealer != nil {
			if offset < encrypt.HeaderSize {
				head := l.sealer.Header()
				m := copy(p[n:], head[offset:])
				n, offset = n+m, offset+int64(m)
				continue
			}
			k = (offset - encrypt.HeaderSize) / (l.segmentSize + encrypt.SegmentOverhead)
		}
		start, length := l.geometry.Stored(k)
		m := int(min(int64(len(p)-n), start+length-offset))
		if b := l.segment(k); b != nil {
			copy(p[n:n+m], b[offset-start:])
		} else {
			clear(p[n : n+m])
		}
		n, offset = n+m, offset+int64(m)
	}
	if n < len(p) {
		err = io.EOF
	}
	return n, err
}

// push publishes the artifact under a policy-abiding release and grant, and
// returns the store to read it from.
func (s *sparse) push(t testing.TB) registry.Opener {
	t.Helper()
	memory := registry.NewMemory()
	to := openShelf(t, memory, repository)
	s.layers = make(map[digest.Digest]*sparseLayer)
	key := encrypt.NewKey()
	defer key.Close()
	var id [16]byte
	rand.Read(id[:])
	h := index.Header{FormatVersion: 1, Profile: s.profile, SegmentSize: s.segmentSize}
	var digests []byte
	var descs []ocispec.Descriptor
	var files []index.File
	var headers []string
	for i, f := range s.files {
		entry := index.File{Path: f.path, Role: "weight", Size: f.size}
		for offset := int64(0); offset < f.size; offset += 512 << 20 {
			l := &sparseLayer{sparse: s, file: i, ordinal: len(descs), offset: offset, stored: make(map[int64][]byte)}
			l.geometry = index.GeometryOf(s.profile, min(512<<20, f.size-offset), s.segmentSize)
			d := ocispec.Descriptor{MediaType: layerType + "weight.v1.raw", Size: l.geometry.Blob(), Digest: digest.FromString(fmt.Sprint(f.path, offset))}
			name := f.path
			if f.size > 512<<20 {
				name = fmt.Sprintf("%s.part%05d", f.path, offset/(512<<20)+1)
			}
			if s.profile == index.Encrypted {
				l.sealer = must(encrypt.NewPartSealer(key, encrypt.Part{ArtifactID: id, Layer: uint32(l.ordinal), Length: l.geometry.Content, SegmentSize: int(s.segmentSize)}))
				head := l.sealer.Header()
				headers = append(headers, hex.EncodeToString(head[:]))
				d.MediaType, name = sealedType, fmt.Sprintf("%05d.floe", l.ordinal+1)
			}
			d.Annotations = map[string]string{pathKey: name, ocispec.AnnotationTitle: name}
			for k := range l.geometry.Count() {
				var sum [32]byte
				if b := l.segment(k); b != nil {
					sum = sha256.Sum256(b)
				} else {
					rand.Read(sum[:])
				}
				digests = append(digests, sum[:]...)
			}
			entry.Runs = append(entry.Runs, index.Run{FileOffset: offset, Layer: l.ordinal, Length: l.geometry.Content})
			h.Layers = append(h.Layers, index.Layer{Digest: d.Digest, Size: d.Size})
			descs = append(descs, d)
			s.layers[d.Digest] = l
		}
		files = append(files, entry)
	}
	h.Files = files
	if s.profile == index.Encrypted {
		commitment := key.Commitment(id)
		h.Files, h.Encryption = nil, &index.Encryption{ArtifactID: hex.EncodeToString(id[:]), Commitment: hex.EncodeToString(commitment[:]),
			MinWrapClass: "post-quantum", Headers: headers, Sealed: must(key.SealIndex(id, must(json.Marshal(index.SealedFiles{Files: files}))))}
	}
	header := must(json.Marshal(h))
	x := to.blob(indexType, append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), append(header, digests...)...))
	x.Annotations = map[string]string{pathKey: indexName}
	desc := to.put(ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: modelType,
		Config: to.blob(configType, []byte("{}")), Layers: append(descs, x),
		Annotations: map[string]string{profileKey: string(s.profile), indexKey: string(x.Digest)}})
	to.bundle(desc, release(t, s.by, desc.Digest, provenance.Release{Name: "team/llama", Tags: []string{"v3"}, Sequence: 7, Profile: string(s.profile), IndexDigest: x.Digest}))
	if s.profile == index.Encrypted {
		b := encrypt.Binding{ArtifactID: id, Commitment: key.Commitment(id), Manifest: desc.Digest}
		g := encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest,
			Recipients: must(encrypt.WrapKey(t.Context(), key, b, s.by.identity.Recipient()))}
		to.attach(desc, grantType, to.blob(grantType, must(g.Encode())))
	}
	if err := to.Tag(t.Context(), desc, "v3"); err != nil {
		t.Fatal(err)
	}
	return sparseOpener{memory, s}
}

type sparseOpener struct {
	registry.Opener
	s *sparse
}

func (o sparseOpener) Open(ctx context.Context, name string) (registry.Store, error) {
	store, err := o.Opener.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return sparseStore{store.(registry.WriteStore), o.s}, nil
}

type sparseStore struct {
	registry.WriteStore
	s *sparse
}

// asked is one request for a part of a layer.
type asked struct {
	layer     *sparseLayer
	offset, n int64
}

func (s sparseStore) Fetch(ctx context.Context, d ocispec.Descriptor, offset, n int64) (io.ReadCloser, error) {
	if l := s.s.layers[d.Digest]; l != nil {
		s.s.mu.Lock()
		defer s.s.mu.Unlock()
		s.s.asked = append(s.s.asked, asked{l, offset, n})
		return io.NopCloser(io.NewSectionReader(l, offset, n)), nil
	}
	return s.WriteStore.Fetch(ctx, d, offset, n)
}

// pattern is content that differs everywhere and costs little to make.
func pattern(p []byte, offset int64) {
	for len(p) > 0 {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], uint64(offset>>3+1)*0x9e3779b97f4a7c15)
		n := copy(p, word[offset&7:])
		p, offset = p[n:], offset+int64(n)
	}
}

// tensorFileOf is a safetensors file of BF16 tensors, whose data is the pattern
// by the offset in the file.
func tensorFileOf(path string, list ...weights) sparseFile {
	var header []byte
	header = append(header, '{')
	at := int64(0)
	for i, w := range list {
		if i > 0 {
			header = append(header, ',')
		}
		n := int64(2)
		for _, d := range w.shape {
			n *= d
		}
		header = fmt.Appendf(header, `%q:{"dtype":"BF16","shape":%s,"data_offsets":[%d,%d]}`, w.name, must(json.Marshal(w.shape)), at, at+n)
		at += n
	}
	header = append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header)+1)), header...), '}')
	return sparseFile{path: path, size: int64(len(header)) + at, at: func(p []byte, offset int64) {
		n := 0
		if offset < int64(len(header)) {
			n = copy(p, header[offset:])
		}
		pattern(p[n:], offset+int64(n))
	}}
}
