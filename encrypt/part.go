// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/internal/floe"
)

const (
	// HeaderSize is the length of the FLOE header that starts a layer.
	HeaderSize = floe.HeaderSize
	// SegmentOverhead is what a segment adds to its plaintext, in bytes.
	SegmentOverhead = floe.Overhead
	// PlaintextOffset is how much of that comes before the plaintext, in bytes.
	PlaintextOffset = floe.PlaintextOffset

	// maxSealLength bounds what a writer makes (FORMAT.md §11) and with it the
	// record of positions, to 16 KiB.
	maxSealLength = 8 << 30
	// maxOpenLength is the longest layer a reader takes (FORMAT.md §11).
	maxOpenLength = 1 << 50
)

// A Part is the geometry of one layer of the encrypted profile (FORMAT.md §5).
// A reader takes all of it from the verified index: positions, lengths and the
// final flag of a segment follow from here and from nowhere else.
type Part struct {
	// ArtifactID is that of the index header.
	ArtifactID [16]byte
	// Layer is the ordinal of the layer, from 0.
	Layer uint32
	// Length is L, the plaintext bytes of the layer: at most 8 GiB to seal,
	// at most 2^50 to open.
	Length int64
	// SegmentSize is S, the plaintext bytes of a full segment: 65536, 262144,
	// 1048576, 4194304 or 16777216.
	SegmentSize int
}

// Segments returns how many segments the layer has; an empty layer has one.
func (p Part) Segments() int64 {
	s := int64(p.SegmentSize)
	return max(1, p.Length/s+min(1, p.Length%s))
}

// plain returns the plaintext length of segment k and whether it is the final
// one, and refuses a k that the layer does not have.
func (p Part) plain(k int64) (n int, final bool, err error) {
	last := p.Segments() - 1
	if k < 0 || k > last {
		return 0, false, fmt.Errorf("encrypt: layer %d has no segment %d, its last is %d", p.Layer, k, last)
	}
	if k < last {
		return p.SegmentSize, false, nil
	}
	return int(p.Length - k*int64(p.SegmentSize)), true, nil
}

func (p Part) check(maxLength int64) error {
	switch p.SegmentSize {
	case 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24:
	default:
		return fmt.Errorf("encrypt: segment size %d; allowed are 64 KiB, 256 KiB, 1 MiB, 4 MiB and 16 MiB", p.SegmentSize)
	}
	if p.Length < 0 || p.Length > maxLength {
		return fmt.Errorf("encrypt: layer %d of %d bytes, at most %d are allowed", p.Layer, p.Length, maxLength)
	}
	return nil
}

func (p Part) params() floe.Params {
	return floe.Params{Segment: p.SegmentSize + SegmentOverhead, Rotation: floe.Rotation}
}

// aad is the associated data of the message (FORMAT.md §6.1).
func (p Part) aad() []byte {
	b := sectionAAD("modelsec/v1/part", p.ArtifactID)
	b = binary.BigEndian.AppendUint32(b, p.Layer)
	b = binary.BigEndian.AppendUint64(b, uint64(p.Length))
	return binary.BigEndian.AppendUint32(b, uint32(p.SegmentSize+SegmentOverhead))
}

// PartKeys has the keys of layers: a [*Key] those of all, [*FileKeys] those of
// some. A layer whose key it lacks is [ErrNoKey].
type PartKeys interface {
	io.Closer // wipes the keys
	partKey(artifactID [16]byte, layer uint32) ([floe.KeySize]byte, error)
}

// lendPart lends the key of a layer to f.
func lendPart(keys PartKeys, p Part, f func(*[floe.KeySize]byte) error) (err error) {
	guard(func() {
		var k [floe.KeySize]byte
		defer clear(k[:])
		if k, err = keys.partKey(p.ArtifactID, p.Layer); err == nil {
			err = f(&k)
		}
	})
	return err
}

// A PartSealer encrypts the segments of one attempt to write a layer. An
// attempt that is repeated needs a new PartSealer, which has a new FLOE IV. It
// is safe for concurrent use.
type PartSealer struct {
	part   Part
	sealer *floe.Sealer
	sealed []atomic.Uint64 // one bit for each segment
}

// NewPartSealer starts a layer.
func NewPartSealer(key *Key, p Part) (*PartSealer, error) {
	if err := p.check(maxSealLength); err != nil {
		return nil, err
	}
	var sealer *floe.Sealer
	err := lendPart(key, p, func(k *[floe.KeySize]byte) (err error) {
		sealer, err = floe.NewSealer(k, p.aad(), p.params())
		if err != nil {
			panic("encrypt: " + err.Error()) // p was checked
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &PartSealer{p, sealer, make([]atomic.Uint64, (p.Segments()+63)/64)}, nil
}

// Header returns the first bytes of the layer, which the index repeats.
func (s *PartSealer) Header() [HeaderSize]byte { return s.sealer.Header() }

// SealSegment appends the stored form of segment k to dst and returns the
// extended slice. Nothing is copied where dst has room for SegmentOverhead
// bytes more than plaintext; the two must not overlap. A k that the layer does
// not have, a plaintext of another length than k has, and a k that was sealed
// before are errors.
func (s *PartSealer) SealSegment(dst []byte, k int64, plaintext []byte) ([]byte, error) {
	n, final, err := s.part.plain(k)
	if err != nil {
		return nil, err
	}
	if len(plaintext) != n {
		return nil, fmt.Errorf("encrypt: layer %d, segment %d: %d bytes to seal, it has %d", s.part.Layer, k, len(plaintext), n)
	}
	// Two segments for one position could be exchanged without notice.
	if bit := uint64(1) << (k % 64); s.sealed[k/64].Or(bit)&bit != 0 {
		return nil, fmt.Errorf("encrypt: layer %d, segment %d: sealed before; another attempt needs another sealer", s.part.Layer, k)
	}
	out, err := s.sealer.Seal(dst, plaintext, uint64(k), final)
	if err != nil {
		panic("encrypt: " + err.Error()) // k and the length were checked
	}
	return out, nil
}

// A PartOpener decrypts the segments of a layer, in any order. It is safe for
// concurrent use.
type PartOpener struct {
	part   Part
	opener *floe.Opener
}

// NewPartOpener checks header, the copy in the index, against the key and the
// geometry. A header with other parameters or another tag is [ErrDecrypt].
func NewPartOpener(keys PartKeys, p Part, header []byte) (*PartOpener, error) {
	if err := p.check(maxOpenLength); err != nil {
		return nil, err
	}
	var opener *floe.Opener
	err := lendPart(keys, p, func(k *[floe.KeySize]byte) (err error) {
		if opener, err = floe.NewOpener(k, p.aad(), header, p.params()); err != nil {
			return fmt.Errorf("header of layer %d: %w", p.Layer, ErrDecrypt)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &PartOpener{p, opener}, nil
}

// OpenSegment authenticates segment k, appends its plaintext to dst and returns
// the extended slice. Plaintext is written straight into dst where it has room;
// dst must not overlap stored, except that stored[4:4] opens in place. A k or a
// length that does not fit the layer is an error of its own; bytes that do not
// authenticate are [ErrDecrypt], and no plaintext is left in dst.
//
// The caller has compared the SHA-256 of stored with the index before: a tag
// proves nothing against those who hold the key (FORMAT.md §6.2).
func (o *PartOpener) OpenSegment(dst []byte, k int64, stored []byte) ([]byte, error) {
	n, final, err := o.part.plain(k)
	if err != nil {
		return nil, err
	}
	if len(stored) != n+SegmentOverhead {
		return nil, fmt.Errorf("encrypt: layer %d, segment %d: %d stored bytes, it has %d", o.part.Layer, k, len(stored), n+SegmentOverhead)
	}
	out, err := o.opener.Open(dst, stored, uint64(k), final)
	if err != nil {
		return nil, fmt.Errorf("layer %d, segment %d: %w", o.part.Layer, k, ErrDecrypt)
	}
	return out, nil
}

// Frame returns the SegmentOverhead bytes of a stored segment that are not
// ciphertext. With them and its plaintext, RestoreSegment can tell later that
// the plaintext is that of the segment. They are no secret. stored must have
// SegmentOverhead bytes at least.
func Frame(stored []byte) (frame [SegmentOverhead]byte) {
	n := copy(frame[:PlaintextOffset], stored)
	copy(frame[n:], stored[len(stored)-(SegmentOverhead-n):])
	return frame
}

// RestoreSegment makes stored the bytes that segment k was stored as. It holds
// the plaintext from PlaintextOffset on, and room for the rest of frame behind
// it; frame is what Frame returned for the segment. A k or a length that does
// not fit the layer is an error.
//
// Nothing is authenticated here. The caller compares the SHA-256 of stored with
// the index, which proves plaintext and frame together, and shows stored to
// nobody: a frame from a disk may be one that somebody chose.
func (o *PartOpener) RestoreSegment(stored []byte, k int64, frame [SegmentOverhead]byte) error {
	n, final, err := o.part.plain(k)
	if err != nil {
		return err
	}
	if len(stored) != n+SegmentOverhead {
		return fmt.Errorf("encrypt: layer %d, segment %d: room for %d stored bytes, it has %d", o.part.Layer, k, len(stored), n+SegmentOverhead)
	}
	copy(stored, frame[:PlaintextOffset])
	copy(stored[PlaintextOffset+n:], frame[PlaintextOffset:])
	if err := o.opener.Restore(stored, uint64(k), final); err != nil {
		panic("encrypt: " + err.Error()) // k and the length were checked
	}
	return nil
}
