// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/registry"
)

// small reports whether a layer has one segment at most.
func (u *uploader) small(i int) bool { return u.plan.layers[i].content <= u.plan.segment }

// smallBlob is the memory of one small layer on its way.
type smallBlob struct{ content, stored []byte }

// putSmall makes the blob of a layer of one segment in memory: its digest is
// then known first, one request is saved, and nothing has to run beside anything.
func (u *uploader) putSmall(ctx, settled context.Context, i int, putter registry.Putter) (*uploaded, error) {
	l := u.plan.layers[i]
	memory := l.content
	if u.encrypted() {
		memory += index.SealHeader + l.content + index.SealOverhead
	}
	if err := u.c.budget.borrow(ctx, memory); err != nil {
		return nil, err
	}
	defer u.c.budget.repay(memory)
	b, _ := u.blobs.Get().(*smallBlob)
	if b == nil {
		b = new(smallBlob)
	}
	defer u.blobs.Put(b)
	out := &uploaded{}
	if err := u.readSmall(l, b, out); err != nil {
		return nil, err
	}
	stored := b.content
	if u.encrypted() {
		if err := u.sealSmall(ctx, i, b, out); err != nil {
			return nil, err
		}
		stored = b.stored
	}
	if err := u.c.lane(ctx, func() error { return u.hashSmall(stored, out) }); err != nil {
		return nil, err
	}
	d := ocispec.Descriptor{MediaType: layerMediaType, Digest: out.digest, Size: out.size}
	if err := putter.Put(settled, d, bytes.NewReader(stored)); err != nil {
		return nil, err
	}
	u.done.Add(l.content)
	return out, nil
}

// readSmall reads the content of a layer, and one byte more, which makes the
// source say that it did not change.
func (u *uploader) readSmall(l layerPlan, b *smallBlob, out *uploaded) error {
	r := &contentReader{src: u.src, sources: u.plan.sources, extents: l.extents}
	if u.fileDigests && l.packed {
		out.files = make(map[int]godigest.Digest)
		r.digests = out.files
	}
	defer r.Close()
	b.content = resize(b.content, int(l.content))
	if _, err := io.ReadFull(r, b.content); err != nil {
		return err
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: content continues after its listed length: %w", ErrSource, err)
	}
	return nil
}

// sealSmall makes the only segment of a layer, after its header.
func (u *uploader) sealSmall(ctx context.Context, i int, b *smallBlob, out *uploaded) error {
	sealer, err := encrypt.NewPartSealer(u.key, encrypt.Part{ArtifactID: u.id, Layer: uint32(i), Length: int64(len(b.content)), SegmentSize: int(u.plan.segment)})
	if err != nil {
		return err
	}
	header := sealer.Header()
	out.header = hex.EncodeToString(header[:])
	b.stored = append(resize(b.stored, index.SealHeader+len(b.content)+index.SealOverhead)[:0], header[:]...)
	return u.c.lane(ctx, func() (err error) {
		b.stored, err = sealer.SealSegment(b.stored, 0, b.content)
		return err
	})
}

// hashSmall fills in the digests of a blob of one segment, which in the plain
// profile are one and the same.
func (u *uploader) hashSmall(stored []byte, out *uploaded) error {
	out.size = int64(len(stored))
	if len(out.header) == 0 {
		sum := digest.Sum(stored)
		out.digest = godigest.NewDigestFromBytes(godigest.SHA256, sum[:])
		if len(stored) > 0 {
			out.digests = sum[:]
		}
		return nil
	}
	blob := u.lanes.NewBlob()
	blob.Write(stored[:index.SealHeader])
	segment := blob.Part(stored[index.SealHeader:])
	out.digests = segment[:]
	sum, err := blob.Sum()
	out.digest = godigest.NewDigestFromBytes(godigest.SHA256, sum[:])
	return err
}

// resize returns n bytes of b, or new ones where it has less.
func resize(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}
