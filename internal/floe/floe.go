// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package floe implements Fast Lightweight Online Encryption
// (c2sp.org/FLOE): AES-256-GCM segments under keys that HKDF-Expand-SHA-384
// derives from a random per-message IV, with a header that commits to the key.
//
// It is the random-access half of the specification: a segment is sealed or
// opened by its position, in any order and from any number of goroutines. That
// interface trusts its caller. FLOE holds only if each position is sealed once,
// all are sealed, the final one is the highest, and an opener takes position
// and final flag from what it knows about the message rather than from the
// stored bytes. Package encrypt is the caller that keeps these rules.
//
// The one AES-GCM constructor used is cipher.NewGCMWithRandomNonce, whose
// output is byte for byte the body of a FLOE segment, and which Go's strict
// FIPS 140-3 mode allows. Restore, which makes nothing that leaves the process,
// uses AES-CTR.
package floe

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
)

const (
	// KeySize is the length of a FLOE key in bytes.
	KeySize = 32
	// HeaderSize is the length of a header: parameters, IV, tag.
	HeaderSize = paramsSize + ivSize + tagSize
	// Overhead is what a segment adds to its plaintext: the final-length
	// word, the IV and the tag of AES-GCM.
	Overhead = PlaintextOffset + 16
	// PlaintextOffset is where the ciphertext of a segment begins, and where
	// Restore wants plaintext.
	PlaintextOffset = wordSize + nonceSize
	// Rotation is AEAD_ROTATION_MASK of the specification: 2^20 segments share
	// an AES key, far below the 2^32 messages that random IVs allow.
	Rotation = 20
	// MaxSegments is AEAD_MAX_SEGMENTS, the most segments of one message.
	MaxSegments = 1 << 40
	// MaxSegment is the longest stored segment this implementation takes. The
	// specification allows nearly 2^32; this much fits an int everywhere.
	MaxSegment = 1 << 30

	paramsSize     = 10
	ivSize         = 32
	tagSize        = 32
	messageKeySize = 48
	wordSize       = 4
	nonceSize      = 12
	innerWord      = 0xFFFFFFFF
)

// ErrOpen is the only error for a header or a segment that does not
// authenticate. It says nothing about which check failed.
var ErrOpen = errors.New("floe: decryption failed")

// Params are the parameters that writer and reader agree on beforehand.
type Params struct {
	// Segment is ENC_SEG_LEN: the stored bytes of a full segment, Overhead
	// included. More than Overhead and at most MaxSegment.
	Segment int
	// Rotation is AEAD_ROTATION_MASK, 0 to 63. Messages have the constant
	// Rotation; only published vectors have another.
	Rotation uint
}

func (p Params) check() error {
	if p.Segment <= Overhead || p.Segment > MaxSegment {
		return fmt.Errorf("floe: segments of %d bytes; more than %d and at most %d are possible", p.Segment, Overhead, MaxSegment)
	}
	if p.Rotation > 63 {
		return fmt.Errorf("floe: rotation mask %d; at most 63 is possible", p.Rotation)
	}
	return nil
}

// encode is PARAM_ENCODE: AEAD_ID 0, KDF_ID 0, ENC_SEG_LEN, FLOE_IV_LEN.
func (p Params) encode() (b [paramsSize]byte) {
	binary.BigEndian.PutUint32(b[2:], uint32(p.Segment))
	binary.BigEndian.PutUint32(b[6:], ivSize)
	return b
}

// message is the State of the specification.
type message struct {
	params Params
	prefix [paramsSize + ivSize]byte
	aad    []byte
	key    [messageKeySize]byte
	epoch  atomic.Pointer[epoch]
}

// epoch is the cipher for the 2^Rotation positions that start at base.
type epoch struct {
	base  uint64
	block cipher.Block
	aead  cipher.AEAD
}

// start derives what both directions need and returns the header tag.
func (m *message) start(key *[KeySize]byte, aad []byte, p Params, iv []byte) []byte {
	encoded := p.encode()
	m.params = p
	copy(m.prefix[:], encoded[:])
	copy(m.prefix[paramsSize:], iv)
	m.aad = slices.Clone(aad)
	copy(m.key[:], m.derive(key[:], "MESSAGE_KEY:", messageKeySize))
	return m.derive(key[:], "HEADER_TAG:", tagSize)
}

// derive is FLOE_KDF.
func (m *message) derive(key []byte, purpose string, n int) []byte {
	info := make([]byte, 0, len(m.prefix)+len(purpose)+len(m.aad))
	info = append(info, m.prefix[:]...)
	info = append(info, purpose...)
	info = append(info, m.aad...)
	out, err := hkdf.Expand(sha512.New384, key, string(info), n)
	if err != nil {
		panic("floe: HKDF-Expand: " + err.Error()) // key and output sizes are constants
	}
	return out
}

// at returns the epoch of a position. Only the one used last is kept: a miss
// costs two microseconds, and a message below 2^20 segments has one.
func (m *message) at(position uint64) *epoch {
	base := position &^ (1<<m.params.Rotation - 1)
	if e := m.epoch.Load(); e != nil && e.base == base {
		return e
	}
	key := m.derive(m.key[:], "DEK:"+string(binary.BigEndian.AppendUint64(nil, base)), KeySize)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("floe: AES: " + err.Error()) // the key has 32 bytes
	}
	clear(key)
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("floe: GCM: " + err.Error()) // the block is crypto/aes's own
	}
	e := &epoch{base, block, aead}
	m.epoch.Store(e)
	return e
}

// associated is the AAD of a segment: I2BE(position, 8) || final.
func associated(position uint64, final bool) (b [9]byte) {
	binary.BigEndian.PutUint64(b[:], position)
	if final {
		b[8] = 1
	}
	return b
}

// A Sealer encrypts one message. It is safe for concurrent use.
type Sealer struct {
	m      message
	header [HeaderSize]byte
}

// NewSealer starts a message under a fresh random IV.
func NewSealer(key *[KeySize]byte, aad []byte, p Params) (*Sealer, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	var iv [ivSize]byte
	rand.Read(iv[:])
	s := new(Sealer)
	tag := s.m.start(key, aad, p, iv[:])
	copy(s.header[:], s.m.prefix[:])
	copy(s.header[len(s.m.prefix):], tag)
	return s, nil
}

// Header returns the header of the message.
func (s *Sealer) Header() [HeaderSize]byte { return s.header }

// Seal appends the segment at position to dst and returns the extended slice.
// Nothing is copied where dst has room for len(plaintext)+Overhead more bytes;
// that room and plaintext must not overlap. A segment that is not final has
// exactly as much plaintext as fits, the final one at most that.
func (s *Sealer) Seal(dst, plaintext []byte, position uint64, final bool) ([]byte, error) {
	full := s.m.params.Segment - Overhead
	if position >= MaxSegments || len(plaintext) > full || !final && len(plaintext) != full {
		return nil, fmt.Errorf("floe: no segment %d of %d bytes (final: %t) where a full one has %d", position, len(plaintext), final, full)
	}
	word := uint32(innerWord)
	if final {
		word = uint32(len(plaintext) + Overhead)
	}
	dst = slices.Grow(dst, len(plaintext)+Overhead)
	dst = binary.BigEndian.AppendUint32(dst, word)
	aad := associated(position, final)
	return s.m.at(position).aead.Seal(dst, nil, plaintext, aad[:]), nil
}

// An Opener decrypts one message. It is safe for concurrent use.
type Opener struct{ m message }

// NewOpener checks the header of a message against key, aad and p. A header
// with other parameters, or with a tag that this key did not make, is ErrOpen.
func NewOpener(key *[KeySize]byte, aad, header []byte, p Params) (*Opener, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	encoded := p.encode()
	if len(header) != HeaderSize || [paramsSize]byte(header) != encoded {
		return nil, ErrOpen
	}
	o := new(Opener)
	tag := o.m.start(key, aad, p, header[paramsSize:paramsSize+ivSize])
	if subtle.ConstantTimeCompare(tag, header[paramsSize+ivSize:]) != 1 {
		return nil, ErrOpen
	}
	return o, nil
}

// Open authenticates the segment at position, appends its plaintext to dst and
// returns the extended slice. Plaintext is written straight into dst where it
// has room; that room must not overlap segment, except that segment[4:4] opens
// in place. On error the room is zeroed or untouched.
func (o *Opener) Open(dst, segment []byte, position uint64, final bool) ([]byte, error) {
	full := o.m.params.Segment
	if position >= MaxSegments || len(segment) < Overhead || len(segment) > full || !final && len(segment) != full {
		return nil, ErrOpen
	}
	word := uint32(innerWord)
	if final {
		word = uint32(len(segment))
	}
	if binary.BigEndian.Uint32(segment) != word {
		return nil, ErrOpen
	}
	aad := associated(position, final)
	out, err := o.m.at(position).aead.Open(dst, nil, segment[wordSize:], aad[:])
	if err != nil {
		return nil, ErrOpen
	}
	return out, nil
}

// Restore encrypts an opened segment again as it was stored. segment holds its
// IV and its tag where they were stored, and its plaintext in place of the
// ciphertext. Nothing is authenticated: what comes out is the stored segment if
// all of them were its own, which only a digest of it can tell. It must not be
// shown to anybody, since IV and plaintext may be of somebody's choice.
func (o *Opener) Restore(segment []byte, position uint64, final bool) error {
	full := o.m.params.Segment
	if position >= MaxSegments || len(segment) < Overhead || len(segment) > full || !final && len(segment) != full {
		return ErrOpen
	}
	word := uint32(innerWord)
	if final {
		word = uint32(len(segment))
	}
	binary.BigEndian.PutUint32(segment, word)
	// GCM encrypts from the second block of its counter on: the first masks the
	// tag (SP 800-38D, section 7.1).
	counter := append(make([]byte, 0, aes.BlockSize), segment[wordSize:PlaintextOffset]...)
	counter = binary.BigEndian.AppendUint32(counter, 2)
	body := segment[PlaintextOffset : len(segment)-(Overhead-PlaintextOffset)]
	cipher.NewCTR(o.m.at(position).block, counter).XORKeyStream(body, body)
	return nil
}
