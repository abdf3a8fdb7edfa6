// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/registry"
)

// slotsPerPart is how many segments of one part are under way at a time: some
// being read, sealed and hashed, some on their way to the registry.
const slotsPerPart = 6

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
	key     *encrypt.Key // nil in the plain profile
	id      [16]byte
	journal *journal  // nil: none
	blobs   sync.Pool // of *smallBlob

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

// slot carries one segment through the stages of an upload.
type slot struct {
	plain, stored []byte
	length        int64        // of the content in it
	ready         chan error   // one value: sealed, or not
	users         atomic.Int32 // who still reads stored
}

// part is one attempt to upload one layer.
type part struct {
	*uploader
	geometry      index.Geometry
	sealer        *encrypt.PartSealer // nil in the plain profile
	digests       []byte
	files         map[int]godigest.Digest // nil: not wanted
	sent          int64                   // content bytes
	free, ordered chan *slot
}

// upload puts a layer into the registry. A connection that breaks costs the
// part: it is read again and sealed anew, since no position of a FLOE message
// is sealed twice under one header. caller is the context of the push, and ctx
// ends with the failure of another layer too.
func (u *uploader) upload(ctx, caller context.Context, i int) (out *uploaded, err error) {
	if out, err := u.finished(ctx, i); out != nil || err != nil {
		return out, err
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
	out, err := u.pass(ctx, i, w)
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
	out, err := u.pass(ctx, i, f)
	if err != nil {
		return nil, err
	}
	return out, putter.Put(settled, ocispec.Descriptor{MediaType: layerMediaType, Digest: out.digest, Size: out.size}, f)
}

// hash is an upload to nowhere.
func (u *uploader) hash(ctx context.Context, i int) (*uploaded, error) {
	return u.pass(ctx, i, io.Discard)
}

// pass makes the blob of a layer and writes it to w: one goroutine reads the
// source, segments are sealed on the client's lanes, and one goroutine hashes
// them and the blob beside the connection that sends it.
func (u *uploader) pass(ctx context.Context, i int, w io.Writer) (*uploaded, error) {
	l := u.plan.layers[i]
	g := index.GeometryOf(u.plan.profile, l.content, u.plan.segment)
	out := &uploaded{size: g.Blob(), digests: make([]byte, g.Count()*digest.Size)}
	p := &part{uploader: u, geometry: g, digests: out.digests}
	if u.fileDigests && l.packed {
		p.files = make(map[int]godigest.Digest)
		out.files = p.files
	}
	var header []byte
	if u.encrypted() {
		var err error
		p.sealer, err = encrypt.NewPartSealer(u.key, encrypt.Part{ArtifactID: u.id, Layer: uint32(i), Length: l.content, SegmentSize: int(u.plan.segment)})
		if err != nil {
			return nil, err
		}
		h := p.sealer.Header()
		header, out.header = h[:], hex.EncodeToString(h[:])
	}
	segment := min(u.plan.segment, l.content)
	size := p.slots() * p.slotSize(segment)
	if err := u.c.budget.borrow(ctx, size); err != nil {
		return nil, err
	}
	defer u.c.budget.repay(size)
	p.allocate(segment)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	read := make(chan error, 1)
	go func() {
		defer close(p.ordered)
		read <- p.read(ctx, l.extents)
	}()
	var err error
	out.digest, err = p.send(ctx, w, header, cancel)
	// What reading failed of comes first, unless sending made it stop.
	if readErr := <-read; readErr != nil && !(err != nil && errors.Is(readErr, context.Canceled)) {
		err = readErr
	}
	if err != nil {
		u.done.Add(-p.sent)
		return nil, err
	}
	return out, nil
}

// slots is how many segments are under way at a time.
func (p *part) slots() int64 { return min(slotsPerPart, max(1, p.geometry.Count())) }

// slotSize is the memory of one slot for a segment of the given size.
func (p *part) slotSize(segment int64) int64 {
	if p.sealer == nil {
		return segment
	}
	return 2*segment + encrypt.SegmentOverhead
}

// allocate makes the slots.
func (p *part) allocate(segment int64) {
	n := p.slots()
	p.free, p.ordered = make(chan *slot, n), make(chan *slot, n)
	for range n {
		s := &slot{plain: make([]byte, segment), ready: make(chan error, 1)}
		if p.sealer != nil {
			s.stored = make([]byte, 0, segment+encrypt.SegmentOverhead)
		}
		p.free <- s
	}
}

// read fills slots from the source and has them sealed.
func (p *part) read(ctx context.Context, extents []extent) error {
	r := &contentReader{src: p.src, sources: p.plan.sources, extents: extents, digests: p.files}
	defer r.Close()
	for k := range p.geometry.Count() {
		var s *slot
		select {
		case s = <-p.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		_, s.length = p.geometry.Range(k)
		if _, err := io.ReadFull(r, s.plain[:s.length]); err != nil {
			return err
		}
		if p.sealer == nil {
			s.stored = s.plain[:s.length]
			s.ready <- nil
		} else {
			go func() {
				s.ready <- p.c.lane(ctx, func() (err error) {
					s.stored, err = p.sealer.SealSegment(s.stored[:0], k, s.plain[:s.length])
					return err
				})
			}()
		}
		p.ordered <- s
	}
	// Reading past the end makes the source say that it did not change.
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: content continues after its listed length: %w", ErrSource, err)
	}
	return nil
}

// send hashes and writes the blob in order. It always drains the slots, so
// that nothing works on one when it returns; stop ends the reading early.
func (p *part) send(ctx context.Context, w io.Writer, header []byte, stop func()) (godigest.Digest, error) {
	blob := p.lanes.NewBlob()
	blob.Write(header)
	// Hashing and the connection need not keep step: a slot is free when both
	// are done with it.
	hashing, hashed := make(chan *slot, cap(p.ordered)), make(chan error)
	go func() { hashed <- p.hashAll(ctx, blob, hashing) }()
	var failed error
	if len(header) > 0 {
		_, failed = w.Write(header)
	}
	for s := range p.ordered {
		if err := <-s.ready; failed == nil {
			failed = err
		}
		if failed != nil {
			stop()
			continue
		}
		s.users.Store(2)
		hashing <- s
		_, failed = w.Write(s.stored)
		p.sent += s.length
		p.done.Add(s.length)
		p.leave(s)
	}
	close(hashing)
	if err := <-hashed; failed == nil {
		failed = err
	}
	if failed != nil {
		return "", failed
	}
	sum, err := blob.Sum()
	return godigest.NewDigestFromBytes(godigest.SHA256, sum[:]), err
}

// hashAll appends the slots to the blob and notes the digest of each.
func (p *part) hashAll(ctx context.Context, blob *digest.Blob, slots <-chan *slot) (failed error) {
	rest := p.digests
	for s := range slots {
		if failed == nil {
			failed = p.c.lane(ctx, func() error {
				sum := blob.Part(s.stored)
				rest = rest[copy(rest, sum[:]):]
				return nil
			})
		}
		p.leave(s)
	}
	return failed
}

// leave frees a slot when its last user has left it.
func (p *part) leave(s *slot) {
	if s.users.Add(-1) == 0 {
		p.free <- s
	}
}
