// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

// blobStream reads one blob from its beginning and goes on where the
// connection broke. Its bytes are not verified.
type blobStream struct {
	ctx     context.Context
	store   registry.Store
	desc    ocispec.Descriptor
	offset  int64
	body    io.ReadCloser
	got     int64 // over this connection
	attempt int
	whole   bool // the host ignores ranges
}

// leastProgress is what makes up for a connection that breaks: to end it after a
// few bytes must not be a way around the patience that package registry has.
const leastProgress = 32 << 10

func openBlob(ctx context.Context, store registry.Store, d ocispec.Descriptor) *blobStream {
	return &blobStream{ctx: ctx, store: store, desc: d}
}

func (s *blobStream) Read(p []byte) (int, error) {
	for {
		if s.offset == s.desc.Size {
			return 0, io.EOF
		}
		n, err := s.read(p)
		if n > 0 {
			s.offset += int64(n)
			if s.got += int64(n); s.got >= leastProgress {
				s.attempt = 0
			}
			return n, nil
		}
		if err == nil {
			continue
		}
		s.Close()
		if s.attempt++; !curable(err) || s.attempt == fetchAttempts {
			return 0, err
		}
		if err := pause(s.ctx, s.attempt); err != nil {
			return 0, err
		}
	}
}

func (s *blobStream) read(p []byte) (int, error) {
	if s.body == nil {
		body, err := s.open()
		if err != nil {
			return 0, err
		}
		s.body, s.got = body, 0
	}
	return s.body.Read(p)
}

// open asks for what is left. From a host that ignores ranges it gets the whole
// again, and skips what it had.
func (s *blobStream) open() (io.ReadCloser, error) {
	if !s.whole {
		body, err := s.store.Fetch(s.ctx, s.desc, s.offset, s.desc.Size-s.offset)
		if !errors.Is(err, registry.ErrRangeIgnored) {
			return body, err
		}
		s.whole = true
	}
	body, err := s.store.Fetch(s.ctx, s.desc, 0, s.desc.Size)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, body, s.offset); err != nil {
		body.Close()
		return nil, err
	}
	return body, nil
}

// Close ends the current request.
func (s *blobStream) Close() error {
	if s.body == nil {
		return nil
	}
	body := s.body
	s.body = nil
	return body.Close()
}
