// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/internal/pages"
	"github.com/modelsec/modelsec-go/registry"
)

// partAttempts is how often a layer is sent before the push fails.
const partAttempts = 3

// settleTime is how long what the registry is about to store may still take
// when another layer has failed. The journal then has it.
const settleTime = 5 * time.Second

// uploader turns planned layers into blobs.
type uploader struct {
	*operation
	store   registry.WriteStore
	src     fs.FS
	plan    *pushPlan
	lanes   *digest.Lanes
	target  registry.Reference
	key     *encrypt.Key // nil in the plain profile
	id      [16]byte
	journal *journal  // nil: none
	earlier *earlier  // nil: nothing is shared with it
	blobs   sync.Pool // of *smallBlob
	memory  pages.Pool
	pace    *pushPace

	fileDigests bool // somebody asked for them
}

func (u *uploader) encrypted() bool { return u.plan.profile == index.Encrypted }

// uploaded is a layer that the registry has.
type uploaded struct {
	digest  godigest.Digest
	size    int64
	header  string                  // FLOE header in hex; empty in the plain profile
	digests []byte                  // of all segments, in order
	files   map[int]godigest.Digest // of source files, where the layer has several and somebody asked
}

// upload puts a layer into the registry. A connection that breaks costs the
// part: it is read again and sealed anew, since no position of a FLOE message
// is sealed twice under one header. caller is the context of the push, and ctx
// ends with the failure of another layer too.
func (u *uploader) upload(ctx, caller context.Context, i int) (out *uploaded, err error) {
	for _, there := range []func(context.Context, int) (*uploaded, error){u.finished, u.reused} {
		if out, err = there(ctx, i); out != nil || err != nil {
			return out, err
		}
	}
	size := index.GeometryOf(u.plan.profile, u.plan.layers[i].content, u.plan.segment).Blob()
	putter, _ := u.store.(registry.Putter)
	settled, end := outlive(ctx, caller, settleTime)
	defer end()
	for attempt := range partAttempts {
		if err := pause(ctx, attempt); err != nil {
			return nil, err
		}
		first := putter != nil && putter.PutFirst(size)
		switch {
		case putter != nil && u.small(i) && (first || attempt == 0):
			out, err = u.putSmall(ctx, settled, i, putter)
		case first:
			out, err = u.put(ctx, settled, i, putter)
		default:
			out, err = u.stream(ctx, settled, i, size)
		}
		if err == nil || !temporary(err) && !(putter != nil && errors.Is(err, registry.ErrUploadForm)) {
			break
		}
		u.c.logger().Debug("layer to be sent again", "layer", i, "attempt", attempt+1, "error", err)
	}
	if err == nil && u.journal != nil {
		err = u.journal.add(i, out)
	}
	return out, err
}

// outlive returns a context that ends with the caller's, else so long after ctx.
func outlive(ctx, caller context.Context, by time.Duration) (context.Context, func()) {
	out, cancel := context.WithCancel(caller)
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return out, func() {
		stop()
		cancel()
	}
}

// stream reads a layer once and seals, hashes and sends it in the same pass.
func (u *uploader) stream(ctx, settled context.Context, i int, size int64) (*uploaded, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := u.store.Create(ctx, size)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	out, err := u.pass(ctx, i, &pacer{pace: u.pace, out: w}, nil)
	if err != nil {
		return nil, err
	}
	return out, w.Commit(settled, out.digest)
}

// put makes the blob first, in a private file, for registries that must know a
// digest before they take it.
func (u *uploader) put(ctx, settled context.Context, i int, putter registry.Putter) (*uploaded, error) {
	f, err := privateFile()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out, err := u.pass(ctx, i, f, nil)
	if err != nil {
		return nil, err
	}
	return out, putter.Put(settled, ocispec.Descriptor{MediaType: layerMediaType, Digest: out.digest, Size: out.size}, f)
}

// hash is an upload to nowhere of a layer that may be want, or nil where it is
// not. The digests of its segments, where they are known, tell so early.
func (u *uploader) hash(ctx context.Context, i int, want godigest.Digest, segments []byte) (*uploaded, error) {
	out, err := u.pass(ctx, i, io.Discard, segments)
	switch {
	case errors.Is(err, errChanged):
		return nil, nil
	case err == nil && out.digest != want:
		u.done.Add(-u.plan.layers[i].content)
		return nil, nil
	}
	return out, err
}
