// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Memory holds repositories in memory, one per name, for tests and for
// programs that never store. A repository comes to be when it is first
// written. Memory is safe for concurrent use and must not be copied.
type Memory struct {
	mu           sync.Mutex
	repositories map[string]*memoryStore
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{repositories: make(map[string]*memoryStore)}
}

// Open returns the repository of that name, a [WriteStore].
func (m *Memory) Open(_ context.Context, name string) (Store, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, ok := m.repositories[name]
	if !ok {
		s = &memoryStore{
			name:      name,
			blobs:     make(map[digest.Digest][]byte),
			manifests: make(map[digest.Digest]memoryManifest),
			tags:      make(map[string]digest.Digest),
		}
		m.repositories[name] = s
	}
	return s, nil
}

type memoryStore struct {
	name string

	mu        sync.RWMutex
	blobs     map[digest.Digest][]byte
	manifests map[digest.Digest]memoryManifest
	tags      map[string]digest.Digest
}

type memoryManifest struct {
	descriptor ocispec.Descriptor
	listed     ocispec.Descriptor // as a referrer
	subject    digest.Digest
	content    []byte
}

func (s *memoryStore) fail(op, reference string, err error) error {
	return &Error{Op: op, Repository: s.name, Reference: reference, Err: err}
}

func (s *memoryStore) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	if err := errors.Join(ctx.Err(), checkTagOrDigest(tagOrDigest)); err != nil {
		return ocispec.Descriptor{}, s.fail("resolve", "", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	d, ok := s.tags[tagOrDigest]
	if !ok {
		d = digest.Digest(tagOrDigest)
	}
	m, ok := s.manifests[d]
	if !ok {
		return ocispec.Descriptor{}, s.fail("resolve", tagOrDigest, ErrNotFound)
	}
	return m.descriptor, nil
}

func (s *memoryStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	b, err := s.content(ctx, d, off, n)
	if err != nil {
		return nil, s.fail("fetch", d.Digest.String(), err)
	}
	return &memoryReader{ctx: ctx, Reader: bytes.NewReader(b[off : off+n])}, nil
}

func (s *memoryStore) content(ctx context.Context, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	if err := errors.Join(ctx.Err(), checkRange(d, off, n)); err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.blobs[d.Digest]
	if isManifest(d.MediaType) {
		var m memoryManifest
		m, ok = s.manifests[d.Digest]
		b = m.content
	}
	if !ok {
		return nil, ErrNotFound
	}
	if int64(len(b)) != d.Size {
		return nil, fmt.Errorf("%w: %d bytes, descriptor says %d", ErrInvalid, len(b), d.Size)
	}
	return b, nil
}

// memoryReader ends with its context, as the readers of other stores do.
type memoryReader struct {
	ctx context.Context
	*bytes.Reader
}

func (r *memoryReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// WriteTo exists so that io.Copy sees the context as well.
func (r *memoryReader) WriteTo(w io.Writer) (int64, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.WriteTo(w)
}

func (r *memoryReader) Close() error { return nil }

func (s *memoryStore) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		if err := errors.Join(ctx.Err(), checkDigest(subject.Digest)); err != nil {
			yield(ocispec.Descriptor{}, s.fail("list referrers", subject.Digest.String(), err))
			return
		}
		var found []ocispec.Descriptor
		s.mu.RLock()
		for _, m := range s.manifests {
			if m.subject == subject.Digest && (artifactType == "" || m.listed.ArtifactType == artifactType) {
				listed := m.listed
				listed.Annotations = maps.Clone(listed.Annotations)
				found = append(found, listed)
			}
		}
		s.mu.RUnlock()
		slices.SortFunc(found, func(a, b ocispec.Descriptor) int { return cmp.Compare(a.Digest, b.Digest) })
		for i, d := range found {
			if i == maxReferrers {
				yield(ocispec.Descriptor{}, s.fail("list referrers", subject.Digest.String(), fmt.Errorf("%w: %d referrers, limit %d", ErrLimit, len(found), maxReferrers)))
				return
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (s *memoryStore) Tags(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := ctx.Err(); err != nil {
			yield("", s.fail("list tags", "", err))
			return
		}
		s.mu.RLock()
		tags := slices.Sorted(maps.Keys(s.tags))
		s.mu.RUnlock()
		for _, tag := range tags {
			if !yield(tag, nil) {
				return
			}
		}
	}
}

func (s *memoryStore) Has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	_, err := s.content(ctx, d, 0, d.Size)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, ErrNotFound):
		return false, nil
	}
	return false, s.fail("check", d.Digest.String(), err)
}

func (s *memoryStore) Create(ctx context.Context, _ int64) (BlobWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.fail("create", "", err)
	}
	return &memoryWriter{ctx: ctx, store: s}, nil
}

type memoryWriter struct {
	ctx    context.Context // of Create, which governs the upload
	store  *memoryStore
	buf    bytes.Buffer
	closed bool
}

func (w *memoryWriter) Write(p []byte) (int, error) {
	if w.closed {
		return 0, w.store.fail("write", "", errWriterClosed)
	}
	if err := w.ctx.Err(); err != nil {
		return 0, w.store.fail("write", "", err)
	}
	return w.buf.Write(p)
}

func (w *memoryWriter) Commit(ctx context.Context, d digest.Digest) error {
	if w.closed {
		return w.store.fail("commit", d.String(), errWriterClosed)
	}
	if err := errors.Join(ctx.Err(), w.ctx.Err(), checkDigest(d)); err != nil {
		return w.store.fail("commit", d.String(), err)
	}
	w.closed = true
	if got := digest.FromBytes(w.buf.Bytes()); got != d {
		return w.store.fail("commit", d.String(), fmt.Errorf("%w: %d bytes written have digest %s", ErrInvalid, w.buf.Len(), got))
	}
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	w.store.blobs[d] = w.buf.Bytes()
	return nil
}

func (w *memoryWriter) Close() error {
	w.closed = true
	return nil
}

func (s *memoryStore) PushManifest(ctx context.Context, mediaType string, b []byte) (ocispec.Descriptor, error) {
	m, d, err := checkPush(mediaType, b)
	if err := errors.Join(ctx.Err(), err); err != nil {
		return ocispec.Descriptor{}, s.fail("push manifest", d.Digest.String(), err)
	}
	stored := memoryManifest{descriptor: d, listed: m.referrer(d), content: bytes.Clone(b)}
	if m.Subject != nil {
		stored.subject = m.Subject.Digest
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manifests[d.Digest] = stored
	return d, nil
}

func (s *memoryStore) Tag(ctx context.Context, d ocispec.Descriptor, tag string) error {
	if err := errors.Join(ctx.Err(), checkTag(tag)); err != nil {
		return s.fail("tag", tag, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.manifests[d.Digest]; !ok {
		return s.fail("tag", d.Digest.String(), ErrNotFound)
	}
	s.tags[tag] = d.Digest
	return nil
}

func (s *memoryStore) Delete(ctx context.Context, d ocispec.Descriptor) error {
	if _, err := s.content(ctx, d, 0, d.Size); err != nil {
		return s.fail("delete", d.Digest.String(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !isManifest(d.MediaType) {
		delete(s.blobs, d.Digest)
		return nil
	}
	delete(s.manifests, d.Digest)
	maps.DeleteFunc(s.tags, func(_ string, tagged digest.Digest) bool { return tagged == d.Digest })
	return nil
}
