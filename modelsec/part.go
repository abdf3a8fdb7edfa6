// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// part is one attempt to upload one layer.
type part struct {
	*uploader
	geometry index.Geometry
	sealer   *encrypt.PartSealer // nil in the plain profile
	blob     *digest.Blob
	digests  []byte
	expected []byte                  // what they must be; nil: anything
	files    map[int]godigest.Digest // nil: not wanted
	sent     int64                   // content bytes

	group         int             // segments that are hashed together
	stored        int             // bytes of a slot
	narrow        <-chan struct{} // closed when this part must do with little memory
	surplus       int64           // slots that it then gives up
	borrowed      int64
	free, ordered chan *slot
	plain         chan struct{} // one for each segment that may be sealed at a time
}

// pass makes the blob of a layer and writes it to w: one goroutine reads the
// source, segments are sealed on the client's lanes, and one goroutine hashes
// them and the blob beside the connection that sends it. A segment that has not
// the digest that is expected ends it with errChanged.
func (u *uploader) pass(ctx context.Context, i int, w io.Writer, expected []byte) (*uploaded, error) {
	l := u.plan.layers[i]
	g := index.GeometryOf(u.plan.profile, l.content, u.plan.segment)
	out := &uploaded{size: g.Blob(), digests: make([]byte, g.Count()*digest.Size)}
	p := &part{uploader: u, geometry: g, blob: u.lanes.NewBlob(), digests: out.digests, expected: expected}
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
	if err := p.borrow(ctx, min(u.plan.segment, l.content)); err != nil {
		return nil, err
	}
	defer func() { p.c.budget.repay(p.borrowed) }()

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

// read fills slots from the source and has them sealed.
func (p *part) read(ctx context.Context, extents []extent) error {
	r := &contentReader{src: p.src, sources: p.plan.sources, extents: extents, digests: p.files}
	defer r.Close()
	for k := range p.geometry.Count() {
		s, err := p.slot(ctx)
		if err != nil {
			return err
		}
		s.memory = p.memory.Get(p.stored)
		_, s.length = p.geometry.Range(k)
		if err := p.fill(ctx, r, k, s); err != nil {
			p.memory.Put(s.memory)
			return err
		}
		p.ordered <- s
		// What was just read is sent and sealed fastest while this core has it in
		// its cache.
		runtime.Gosched()
	}
	// Reading past the end makes the source say that it did not change.
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: content continues after its listed length: %w", ErrSource, err)
	}
	return nil
}

// fill reads a segment into a slot, or reads it and has it sealed into the slot.
func (p *part) fill(ctx context.Context, r io.Reader, k int64, s *slot) error {
	if p.sealer == nil {
		s.stored = s.memory[:s.length]
		_, err := io.ReadFull(r, s.stored)
		if err == nil {
			s.ready <- nil
		}
		return err
	}
	p.plain <- struct{}{}
	plain := p.memory.Get(int(s.length))
	release := func() {
		p.memory.Put(plain)
		<-p.plain
	}
	if _, err := io.ReadFull(r, plain); err != nil {
		release()
		return err
	}
	go func() {
		err := p.c.lane(ctx, func() (err error) {
			s.stored, err = p.sealer.SealSegment(s.memory[:0], k, plain)
			return err
		})
		release()
		s.ready <- err
	}()
	return nil
}

// send hashes and writes the blob in order. It always drains the slots, so
// that nothing works on one when it returns; stop ends the reading early.
func (p *part) send(ctx context.Context, w io.Writer, header []byte, stop func()) (godigest.Digest, error) {
	p.blob.Write(header)
	// Hashing and the connection need not keep step: a slot is free when both
	// are done with it.
	hashing, hashed := make(chan *slot, cap(p.ordered)), make(chan error)
	go func() { hashed <- p.hashAll(ctx, hashing, stop) }()
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
			p.memory.Put(s.memory)
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
	sum, err := p.blob.Sum()
	return godigest.NewDigestFromBytes(godigest.SHA256, sum[:]), err
}

// hashAll appends the slots to the blob, as many at a time as are hashed
// together, and notes the digest of each. When that fails it stops the reading. In
// a narrow part nothing waits for a group, which it might never fill.
func (p *part) hashAll(ctx context.Context, slots <-chan *slot, stop func()) (failed error) {
	rest := p.digests
	group := make([]*slot, 0, p.group)
	parts, sums := make([][]byte, p.group), make([][digest.Size]byte, p.group)
	hash := func() error {
		for i, s := range group {
			parts[i] = s.stored
		}
		p.blob.Parts(sums[:len(group)], parts[:len(group)])
		at := len(p.digests) - len(rest)
		for _, sum := range sums[:len(group)] {
			rest = rest[copy(rest, sum[:]):]
		}
		end := len(p.digests) - len(rest)
		if p.expected != nil && !bytes.Equal(p.digests[at:end], p.expected[at:end]) {
			return errChanged
		}
		return nil
	}
	narrow, full := p.narrow, p.group
	for more := true; more; {
		var s *slot
		select {
		case s, more = <-slots:
		case <-narrow:
			narrow, full = nil, 1
		}
		if s != nil {
			group = append(group, s)
		}
		if more && len(group) < full {
			continue
		}
		if failed == nil {
			if failed = p.c.lane(ctx, hash); failed != nil {
				stop()
			}
		}
		for _, s := range group {
			p.leave(s)
		}
		group = group[:0]
	}
	return failed
}
