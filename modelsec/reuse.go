// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync/atomic"

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
	refused atomic.Bool    // nothing of it can be mounted
}

// checkReuse refuses an earlier artifact that can have nothing in common with
// what is pushed.
func (o *PushOptions) checkReuse(target registry.Reference) error {
	if o.Reuse == "" {
		return nil
	}
	ref, err := registry.ParseReference(o.Reuse)
	switch {
	case err != nil:
		return fmt.Errorf("%w: Reuse: %w", ErrConfig, err)
	case len(o.Recipients) > 0:
		return fmt.Errorf("%w: Reuse %s: what is encrypted anew has no bytes of something earlier; leave out Reuse, or the Recipients", ErrConfig, o.Reuse)
	case !samePlace(target.Name, ref.Name) && !mountable(target.Name, ref.Name):
		return fmt.Errorf("%w: Reuse %s: it is in another registry or layout than %s; Copy takes it there", ErrConfig, o.Reuse, target.Name)
	}
	return nil
}

// openEarlier reads the artifact to share layers with.
func (u *uploader) openEarlier(ctx context.Context, ref string) error {
	a, err := u.c.resolve(ctx, u.c.begin("push", ref))
	if err != nil {
		return fmt.Errorf("artifact to reuse, %s: %w", ref, err)
	}
	e := &earlier{artifact: a, layers: make(map[string]int)}
	for i, l := range a.manifest.Layers {
		if l.MediaType == sealedMediaType {
			return fmt.Errorf("%w: Reuse %s: it is encrypted, so it has no layer of a plain artifact", ErrConfig, ref)
		}
		e.layers[l.Annotations[filepathAnnotation]] = i
	}
	e.refused.Store(!mountable(u.target.Name, a.ref.Name))
	u.earlier = e
	if !a.indexed {
		return nil
	}
	// Without its segments a layer that changed is read to its end. So it is for
	// want of memory, which must not fail a push that works without.
	if e.content, err = a.content(ctx); err != nil {
		u.c.logger().Warn("its index is of no use, what changed is found late", "reuse", ref, "error", err)
		return ctx.Err()
	}
	if e.content.index.SegmentSize != u.plan.segment || u.c.budget.lendable() < slotsPerPart*u.plan.segment {
		e.release()
	}
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
func (e *earlier) layer(name string, size int64) (d ocispec.Descriptor, segments []byte, ok bool) {
	i, ok := e.layers[name]
	if !ok || e.manifest.Layers[i].Size != size {
		return d, nil, false
	}
	if e.content != nil && i < len(e.content.layers) {
		segments = e.content.index.Digests(i)
	}
	return ocispec.Descriptor{MediaType: layerMediaType, Digest: e.manifest.Layers[i].Digest, Size: size}, segments, true
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
	// Whatever else is wrong will show when the layer is sent.
	there, err := u.store.Has(ctx, d)
	if there = there && err == nil; !there && u.earlier.refused.Load() {
		return nil, ctx.Err()
	}
	out, err := u.hash(ctx, i, d.Digest, segments)
	if out == nil || err != nil {
		return nil, err
	}
	if !there {
		ok, refused, err := u.c.mount(ctx, u.store, u.target.Name, u.earlier.ref.Name, d)
		if refused {
			u.earlier.refused.Store(true)
		}
		if !ok {
			u.done.Add(-l.content)
			return nil, err
		}
	}
	u.found.Add(l.content)
	u.c.logger().Debug("layer is there already", "layer", l.name, "digest", d.Digest, "bytes", d.Size)
	return out, nil
}

// samePlace reports whether two names are of one repository or layout.
func samePlace(a, b string) bool {
	x, isLayout := strings.CutPrefix(a, ociPrefix)
	y, both := strings.CutPrefix(b, ociPrefix)
	return a == b || isLayout && both && path.Clean(x) == path.Clean(y)
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

// mount makes the registry take a blob over from another of its repositories.
// Where it will not, for whatever reason, the blob must be sent; refused says that
// others need not be asked for.
func (c *Client) mount(ctx context.Context, store registry.WriteStore, to, from string, d ocispec.Descriptor) (ok, refused bool, err error) {
	m, can := store.(registry.Mounter)
	if !can || !mountable(to, from) {
		return false, true, nil
	}
	_, repository, _ := strings.Cut(from, "/")
	ok, err = m.Mount(ctx, d, repository)
	if err != nil && ctx.Err() != nil {
		return false, false, err
	}
	if err != nil {
		c.logger().Debug("blob is not mounted", "from", from, "digest", d.Digest, "error", err)
	}
	return ok, !ok && !temporary(err), nil
}
