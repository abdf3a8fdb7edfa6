// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"archive/tar"
	"bytes"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// Bounds of what Push writes. FORMAT.md §2.5, §5.3, §5.4.
const (
	maxPushLayers  = 400
	defaultPart    = 512 << 20
	maxPart        = 8 << 30 // GHCR takes 10 GB a layer
	packAboveFiles = 300     // more files than this and the small ones are packed
	packBelow      = 1 << 20
)

// extent is a stretch of a layer's content: bytes of a source file, or bytes
// of archive framing.
type extent struct {
	literal        []byte
	file           int
	offset, length int64
}

// layerPlan is one content layer before it is read.
type layerPlan struct {
	role, name string // ModelPack role; filepath in the plain profile
	packed     bool
	content    int64
	extents    []extent
}

// pushPlan is everything about an artifact that follows from names and sizes.
type pushPlan struct {
	profile index.Profile
	segment int64
	sources []sourceFile
	layers  []layerPlan
	files   []index.File
	total   int64
}

// plan lays the files out in layers.
func plan(files []sourceFile, profile index.Profile, layerSize, segment int64) (*pushPlan, error) {
	p := &pushPlan{profile: profile, sources: files}
	for _, f := range files {
		p.total += f.size
	}
	p.segment = segment
	if segment == 0 {
		p.segment = index.DefaultSegmentSize
		if p.total > index.LargeArtifact {
			p.segment = index.LargeSegmentSize
		}
	}
	part, err := p.partSize(layerSize)
	if err != nil {
		return nil, err
	}
	for start := 0; start < len(files); {
		end := start
		for end < len(files) && files[end].role == files[start].role {
			end++
		}
		if err := p.addRole(start, end, part); err != nil {
			return nil, err
		}
		start = end
	}
	if len(p.layers) > maxPushLayers {
		return nil, fmt.Errorf("%w: the model needs %d layers, registries take %d: use larger parts (LayerSize) or fewer files", ErrLimit, len(p.layers), maxPushLayers)
	}
	return p, nil
}

// partSize is where files are cut; 0 keeps them whole. FORMAT.md §5.4.
func (p *pushPlan) partSize(layerSize int64) (int64, error) {
	if layerSize < 0 || layerSize > maxPart {
		return 0, fmt.Errorf("%w: LayerSize %d, want 1 to %d bytes", ErrLimit, layerSize, int64(maxPart))
	}
	part := layerSize
	if part == 0 {
		if p.profile == index.Plain {
			return 0, nil
		}
		part = max(defaultPart, (p.total+maxPushLayers-1)/maxPushLayers)
	}
	part = (part + p.segment - 1) / p.segment * p.segment
	if part > maxPart {
		return 0, fmt.Errorf("%w: %d bytes do not fit in %d layers of %d", ErrLimit, p.total, maxPushLayers, int64(maxPart))
	}
	return part, nil
}

// addRole plans the files of one role: the large ones as layers of their own,
// then the small ones packed where there are too many.
func (p *pushPlan) addRole(start, end int, part int64) error {
	var small []int
	for i := start; i < end; i++ {
		f := p.sources[i]
		if len(p.sources) > packAboveFiles && f.size < packBelow {
			small = append(small, i)
			continue
		}
		p.addFile(i, part)
	}
	if len(small) == 0 {
		return nil
	}
	return p.addPacked(small)
}

// addFile plans one file as one layer, or as one layer for each part.
func (p *pushPlan) addFile(i int, part int64) {
	f := p.sources[i]
	entry := index.File{Path: f.path, Role: f.role, Size: f.size}
	split := part > 0 && f.size > part
	for offset := int64(0); offset < f.size || offset == 0; {
		length := f.size - offset
		if split {
			length = min(length, part)
		}
		name := f.path
		if split {
			name = partName(f.path, len(entry.Runs))
		}
		entry.Runs = append(entry.Runs, index.Run{FileOffset: offset, Layer: len(p.layers), Length: length})
		p.layers = append(p.layers, layerPlan{role: f.role, name: name, content: length,
			extents: []extent{{file: i, offset: offset, length: length}}})
		offset += length
		if f.size == 0 {
			break
		}
	}
	p.files = append(p.files, entry)
}

// partName is the filepath of part n of a split file, n counted from 0.
func partName(path string, n int) string { return fmt.Sprintf("%s.part%05d", path, n+1) }

// packedName is the filepath of packed layer n of a role, n counted from 0.
func packedName(role string, n int) string {
	return fmt.Sprintf("%s-packed/%s-%05d.tar", index.Reserved, role, n+1)
}

// addPacked plans small files of one role as an archive. FORMAT.md §5.3. The
// headers are made now and the contents read later, so a layer's length is
// known before a byte of it is.
func (p *pushPlan) addPacked(files []int) error {
	layer := layerPlan{role: p.sources[files[0]].role, packed: true}
	layer.name = packedName(layer.role, 0)
	var framing bytes.Buffer
	w := tar.NewWriter(&framing)
	literal := func() {
		if framing.Len() == 0 {
			return
		}
		b := bytes.Clone(framing.Bytes())
		framing.Reset()
		layer.extents = append(layer.extents, extent{literal: b, length: int64(len(b))})
		layer.content += int64(len(b))
	}
	for _, i := range files {
		f := p.sources[i]
		if err := w.WriteHeader(&tar.Header{Name: f.path, Mode: 0o644, Size: f.size, ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}); err != nil {
			return fmt.Errorf("%w: %q: %w", ErrSource, f.path, err)
		}
		literal()
		p.files = append(p.files, index.File{Path: f.path, Role: f.role, Size: f.size,
			Runs: []index.Run{{Layer: len(p.layers), LayerOffset: layer.content, Length: f.size}}})
		layer.extents = append(layer.extents, extent{file: i, length: f.size})
		layer.content += f.size
		// The archive writer must see as many bytes as it was promised before
		// it writes the padding and the next header.
		framing.Reset()
		if _, err := io.CopyN(w, zeros{}, f.size); err != nil {
			return err
		}
		framing.Reset()
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	literal()
	p.layers = append(p.layers, layer)
	return nil
}

// fileDigests are those of whole files in the plain profile: of the layer, where
// it is the file.
func (p *pushPlan) fileDigests(layers []*uploaded) map[string]godigest.Digest {
	out := make(map[string]godigest.Digest, len(p.sources))
	for i, l := range p.layers {
		if !l.packed {
			out[p.sources[l.extents[0].file].path] = layers[i].digest
		}
		for file, d := range layers[i].files {
			out[p.sources[file].path] = d
		}
	}
	return out
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// contentReader reads the content of a layer from its extents.
type contentReader struct {
	src     fs.FS
	sources []sourceFile
	extents []extent
	current io.Reader
	closer  io.Closer

	digests map[int]godigest.Digest // of the source files that were read, by index; nil: not wanted
	sum     hash.Hash               // of the current one
	file    int
}

func (r *contentReader) Read(p []byte) (int, error) {
	for {
		if r.current != nil {
			n, err := r.current.Read(p)
			if r.sum != nil {
				r.sum.Write(p[:n])
			}
			if err == io.EOF {
				if r.sum != nil {
					r.digests[r.file], r.sum = godigest.NewDigest(godigest.SHA256, r.sum), nil
				}
				err = r.Close()
			}
			if n > 0 || err != nil {
				return n, err
			}
		}
		if r.current != nil {
			continue
		}
		if len(r.extents) == 0 {
			return 0, io.EOF
		}
		e := r.extents[0]
		r.extents = r.extents[1:]
		if e.literal != nil {
			r.current = bytes.NewReader(e.literal)
			continue
		}
		s, err := openSource(r.src, r.sources[e.file], e.offset, e.length)
		if err != nil {
			return 0, err
		}
		r.current, r.closer = s, s
		if r.digests != nil {
			r.sum, r.file = digest.New(), e.file
		}
	}
}

// Close ends the current extent.
func (r *contentReader) Close() error {
	c := r.closer
	r.current, r.closer = nil, nil
	if c == nil {
		return nil
	}
	return c.Close()
}
