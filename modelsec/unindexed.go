// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/registry"
)

// spool holds the layers of an artifact that has no index, in a file that has
// no name, each released only after its whole digest matched (K25). It is a
// store for the rest of the package to read from: what it serves is checked
// segment by segment again, against digests taken while it was filled.
type spool struct {
	registry.Store
	file    *os.File
	offsets map[godigest.Digest]int64
}

// unindexed downloads the whole artifact and makes the index that its
// publisher did not. Only raw ModelPack layers are understood: names come from
// manifest annotations, under the path rules of FORMAT.md §5.2.
func (a *artifact) unindexed(ctx context.Context) (*content, error) {
	h := index.Header{FormatVersion: 1, Profile: index.Plain, SegmentSize: index.DefaultSegmentSize}
	var digests []byte
	s := &spool{Store: a.store, offsets: make(map[godigest.Digest]int64)}
	var err error
	if s.file, err = privateFile(); err != nil {
		return nil, err
	}
	var end, total int64
	var geometry []index.Geometry
	for i, l := range a.manifest.Layers {
		f, err := unindexedFile(i, l)
		if err == nil {
			var g index.Geometry
			g, err = index.NewGeometry(index.Plain, l.Size, h.SegmentSize)
			geometry = append(geometry, g)
		}
		if err != nil {
			s.file.Close()
			return nil, fmt.Errorf("%w: layer %d: %w", ErrFormat, i, err)
		}
		h.Files = append(h.Files, f)
		h.Layers = append(h.Layers, index.Layer{Digest: l.Digest, Size: l.Size})
		total += l.Size
	}
	// The index below checks this too, when all has been downloaded.
	if err := index.CheckFiles(h.Files, geometry); err != nil {
		s.file.Close()
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	defer a.watch(total)()
	for _, l := range a.manifest.Layers {
		sums, err := s.fill(ctx, a, l, end, h.SegmentSize)
		if err != nil {
			s.file.Close()
			return nil, err
		}
		s.offsets[l.Digest] = end
		end += l.Size
		digests = append(digests, sums...)
	}
	t := newContent(a, s, a.manifest.Layers)
	t.closer = s.file
	if t.index, err = index.New(h, digests); err != nil {
		return nil, join(fmt.Errorf("%w: %w", ErrFormat, err), t.release())
	}
	t.setFiles(h.Files)
	if err := t.start(); err != nil {
		return nil, join(err, t.release())
	}
	return t, nil
}

// privateFile makes a file that has no name: nobody else can open it, and
// nothing is left behind however the process ends.
func privateFile() (*os.File, error) {
	f, err := os.CreateTemp("", "modelsec-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: this needs a directory for temporary files where an open file can be removed: %w", ErrConfig, err)
	}
	return f, nil
}

// unindexedFile says which file a layer is.
func unindexedFile(i int, l ocispec.Descriptor) (index.File, error) {
	f := index.File{Path: l.Annotations[filepathAnnotation], Size: l.Size, Runs: []index.Run{{Layer: i, Length: l.Size}}}
	if f.Path == "" {
		f.Path = l.Annotations[ocispec.AnnotationTitle]
	}
	role, ok := strings.CutPrefix(l.MediaType, layerMediaType)
	if !ok {
		return f, fmt.Errorf("media type %q is not of ModelPack", clip(l.MediaType))
	}
	if f.Role, ok = strings.CutSuffix(role, rawSuffix); !ok {
		return f, fmt.Errorf("media type %q is an archive, which is only read by an index", clip(l.MediaType))
	}
	return f, nil
}

// fill copies a layer into the file and returns the digests of its segments.
func (s *spool) fill(ctx context.Context, a *artifact, l ocispec.Descriptor, at, segment int64) ([]byte, error) {
	if err := a.c.budget.borrow(ctx, segment); err != nil {
		return nil, err
	}
	defer a.c.budget.repay(segment)
	body := openBlob(ctx, a.store, l)
	defer body.Close()
	whole := digest.New()
	var sums []byte
	buf := make([]byte, segment)
	for left := l.Size; left > 0; {
		n := min(left, segment)
		if _, err := io.ReadFull(body, buf[:n]); err != nil {
			return nil, err
		}
		whole.Write(buf[:n])
		sum := digest.Sum(buf[:n])
		sums = append(sums, sum[:]...)
		if _, err := s.file.WriteAt(buf[:n], at+l.Size-left); err != nil {
			return nil, err
		}
		left -= n
		a.done.Add(n)
	}
	if got := godigest.NewDigest(godigest.SHA256, whole); got != l.Digest {
		return nil, &Error{Host: a.host, File: clip(l.Annotations[filepathAnnotation]), Segment: -1, Digest: l.Digest, Err: fmt.Errorf("%w: got %s", ErrDigest, got)}
	}
	return sums, nil
}

// Fetch implements registry.Store for the spooled layers.
func (s *spool) Fetch(_ context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	at, ok := s.offsets[d.Digest]
	if !ok {
		return nil, registry.ErrNotFound
	}
	return io.NopCloser(io.NewSectionReader(s.file, at+off, n)), nil
}
