// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

const (
	modelType  = "application/vnd.cncf.model.manifest.v1+json"
	configType = "application/vnd.cncf.model.config.v1+json"
	indexType  = "application/vnd.cncf.model.doc.v1.raw"
	grantType  = "application/vnd.modelsec.grant.v1+json"
	pathKey    = "org.cncf.model.filepath"
	indexKey   = "io.github.modelsec.index"
	profileKey = "io.github.modelsec.profile"
	indexName  = ".modelsec.index"
	layerType  = "application/vnd.cncf.model."
	sealedType = layerType + "weight.v1.raw+floe"
)

// evil is a registry whose owner does as he likes with what it serves. Hooks
// are set before it is used, and may be called concurrently.
type evil struct {
	registry.Opener

	// content may change what is served of a blob or manifest.
	content func(d ocispec.Descriptor, b []byte) []byte
	// tag may say that a tag names something else.
	tag func(tag string, d ocispec.Descriptor) ocispec.Descriptor
	// listed may change the referrers that are listed.
	listed func(subject ocispec.Descriptor, list []ocispec.Descriptor) []ocispec.Descriptor
	// before may fail an operation: resolve, fetch, referrers, create, commit,
	// push, tag or delete, on a tag or digest.
	before func(ctx context.Context, op, on string) error

	// fetched counts the bytes of content layers that were asked for.
	fetched atomic.Int64
}

func (e *evil) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := e.Opener.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &evilStore{s.(registry.WriteStore), e}, nil
}

func (e *evil) fails(ctx context.Context, op, on string) error {
	if e.before == nil {
		return nil
	}
	return e.before(ctx, op, on)
}

type evilStore struct {
	registry.WriteStore
	e *evil
}

func (s *evilStore) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	if err := s.e.fails(ctx, "resolve", tagOrDigest); err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := s.WriteStore.Resolve(ctx, tagOrDigest)
	if err == nil && s.e.tag != nil && digest.Digest(tagOrDigest) != d.Digest {
		d = s.e.tag(tagOrDigest, d)
	}
	return d, err
}

func (s *evilStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := s.e.fails(ctx, "fetch", string(d.Digest)); err != nil {
		return nil, err
	}
	if strings.HasPrefix(d.MediaType, layerType) && d.MediaType != indexType {
		s.e.fetched.Add(n)
	}
	if s.e.content == nil {
		return s.WriteStore.Fetch(ctx, d, off, n)
	}
	whole, err := s.WriteStore.Fetch(ctx, d, 0, d.Size)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(whole)
	if err != nil {
		return nil, err
	}
	b = s.e.content(d, b)
	low, high := min(off, int64(len(b))), min(off+n, int64(len(b)))
	if high-low < n {
		return io.NopCloser(io.MultiReader(bytes.NewReader(b[low:high]), broken{})), nil
	}
	return io.NopCloser(bytes.NewReader(b[low:high])), nil
}

// broken ends early, as the contract of stores has it.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func (s *evilStore) Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		if err := s.e.fails(ctx, "referrers", string(subject.Digest)); err != nil {
			yield(ocispec.Descriptor{}, err)
			return
		}
		var list []ocispec.Descriptor
		for d, err := range s.WriteStore.Referrers(ctx, subject, artifactType) {
			if err != nil {
				yield(d, err)
				return
			}
			list = append(list, d)
		}
		if s.e.listed != nil {
			list = s.e.listed(subject, list)
		}
		for _, d := range list {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func (s *evilStore) Create(ctx context.Context, size int64) (registry.BlobWriter, error) {
	if err := s.e.fails(ctx, "create", ""); err != nil {
		return nil, err
	}
	w, err := s.WriteStore.Create(ctx, size)
	return &evilWriter{w, s.e}, err
}

type evilWriter struct {
	registry.BlobWriter
	e *evil
}

func (w *evilWriter) Commit(ctx context.Context, d digest.Digest) error {
	if err := w.e.fails(ctx, "commit", string(d)); err != nil {
		return err
	}
	return w.BlobWriter.Commit(ctx, d)
}

func (s *evilStore) PushManifest(ctx context.Context, mediaType string, b []byte) (ocispec.Descriptor, error) {
	if err := s.e.fails(ctx, "push", string(digest.FromBytes(b))); err != nil {
		return ocispec.Descriptor{}, err
	}
	return s.WriteStore.PushManifest(ctx, mediaType, b)
}

func (s *evilStore) Tag(ctx context.Context, d ocispec.Descriptor, tag string) error {
	if err := s.e.fails(ctx, "tag", tag); err != nil {
		return err
	}
	return s.WriteStore.Tag(ctx, d, tag)
}

func (s *evilStore) Delete(ctx context.Context, d ocispec.Descriptor) error {
	if err := s.e.fails(ctx, "delete", string(d.Digest)); err != nil {
		return err
	}
	return s.WriteStore.Delete(ctx, d)
}

// journal records operations as strings.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, s)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.entries...)
}
