// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/registry"
)

// errChanged ends the hashing of a layer that is not the one it may be.
var errChanged = errors.New("the layer changed")

// earlier is an artifact that a push shares layers with. What it says of them
// only decides what is hashed before it is sent: a layer counts by the digest
// that its source has now.
type earlier struct {
	*artifact
	layers  map[string]int // by path
	content *content       // nil where no segments can be compared
}

// openEarlier reads the artifact to share layers with.
func (u *uploader) openEarlier(ctx context.Context, ref string) error {
	fail := func(reason string) error {
		return fmt.Errorf("%w: Reuse %s: %s", ErrConfig, ref, reason)
	}
	if u.encrypted() {
		return fail("nothing that is encrypted anew has the bytes of something earlier; leave out Reuse, or the Recipients")
	}
	if r, err := registry.ParseReference(ref); err == nil && r.Name != u.target.Name && !mountable(u.target.Name, r.Name) {
		return fail("it is in another registry than " + u.target.Name + "; Copy takes it there")
	}
	op := u.c.begin("push", ref)
	a, err := u.c.resolve(ctx, op)
	if err != nil {
		return op.fail(err)
	}
	e := &earlier{artifact: a, layers: make(map[string]int)}
	for i, l := range a.manifest.Layers {
		if l.MediaType == sealedMediaType {
			return fail("it is encrypted, so it has no layer of a plain artifact")
		}
		e.layers[l.Annotations[filepathAnnotation]] = i
	}
	if a.indexed {
		t, err := a.content(ctx)
		if err != nil {
			return op.fail(err)
		}
		if e.content = t; t.index.SegmentSize != u.plan.segment {
			e.release()
		}
	}
	u.earlier = e
	return nil
}

// release gives up the memory of the index.
func (e *earlier) release() {
	if e != nil && e.content != nil {
		e.content.release()
		e.content = nil
	}
}

// layer finds the layer of a path and size, and the digests of its segments,
// where they are known.
func (e *earlier) layer(path string, size int64) (d ocispec.Descriptor, segments []byte, ok bool) {
	i, ok := e.layers[path]
	if !ok || e.manifest.Layers[i].Size != size {
		return d, nil, false
	}
	if e.content != nil && i < len(e.content.layers) {
		for k := range e.content.index.Geometry(i).Count() {
			segments = append(segments, e.content.index.Digest(i, k)...)
		}
	}
	return e.manifest.Layers[i], segments, true
}

// reused returns a layer that is what it was in the earlier artifact, once the
// repository has it, or nil. One that changed is read up to where it did.
func (u *uploader) reused(ctx context.Context, i int) (*uploaded, error) {
	if u.earlier == nil {
		return nil, nil
	}
	l := u.plan.layers[i]
	d, segments, ok := u.earlier.layer(l.name, index.GeometryOf(u.plan.profile, l.content, u.plan.segment).Blob())
	if !ok {
		return nil, nil
	}
	out, err := u.hash(ctx, i, d.Digest, segments)
	if out == nil || err != nil {
		return nil, err
	}
	ok, err = u.store.Has(ctx, d)
	if err == nil && !ok {
		ok, err = mount(ctx, u.store, u.target.Name, u.earlier.ref.Name, d)
	}
	if err != nil || !ok {
		u.done.Add(-l.content)
		return nil, err
	}
	u.found.Add(l.content)
	u.c.logger().Info("layer is there already", "layer", l.name, "digest", d.Digest, "bytes", d.Size)
	return out, nil
}

// mountable reports whether a repository may take over blobs of another: both
// are on one host.
func mountable(to, from string) bool {
	if strings.HasPrefix(to, ociPrefix) || strings.HasPrefix(from, ociPrefix) {
		return false
	}
	host, _, _ := strings.Cut(to, "/")
	other, _, _ := strings.Cut(from, "/")
	return host == other && to != from
}

// mount makes the registry take a blob over from another of its repositories,
// if it does such things.
func mount(ctx context.Context, store registry.WriteStore, to, from string, d ocispec.Descriptor) (bool, error) {
	m, ok := store.(registry.Mounter)
	if !ok || !mountable(to, from) {
		return false, nil
	}
	_, path, _ := strings.Cut(from, "/")
	return m.Mount(ctx, d, path)
}
