// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
)

// layer is the largest that can be sealed: 8192 segments.
var layer = encrypt.Part{ArtifactID: [16]byte{1}, Length: 8 << 30, SegmentSize: segmentSize}

func newSealer(b *testing.B, key *encrypt.Key) *encrypt.PartSealer {
	b.Helper()
	s, err := encrypt.NewPartSealer(key, layer)
	if err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkSeal encrypts one segment after the other on one core.
func BenchmarkSeal(b *testing.B) {
	key := encrypt.NewKey()
	defer key.Close()
	plain := random(segmentSize)
	stored := make([]byte, 0, segmentSize+encrypt.SegmentOverhead)
	s, k := newSealer(b, key), int64(0)
	b.SetBytes(segmentSize)
	for b.Loop() {
		// A sealer takes each position once.
		if k == layer.Segments() {
			s, k = newSealer(b, key), 0
		}
		if _, err := s.SealSegment(stored, k, plain); err != nil {
			b.Fatal(err)
		}
		k++
	}
}

// sealed is one stored segment and who can open it.
type sealed struct {
	opener *encrypt.PartOpener
	stored []byte
	sum    [digest.Size]byte
}

func newSealed(b *testing.B) sealed {
	b.Helper()
	key := encrypt.NewKey()
	defer key.Close()
	s := newSealer(b, key)
	header := s.Header()
	o, err := encrypt.NewPartOpener(key, layer, header[:])
	if err != nil {
		b.Fatal(err)
	}
	stored, err := s.SealSegment(nil, 7, random(segmentSize))
	if err != nil {
		b.Fatal(err)
	}
	return sealed{o, stored, digest.Sum(stored)}
}

func (s sealed) open(b *testing.B, dst []byte) {
	if _, err := s.opener.OpenSegment(dst, 7, s.stored); err != nil {
		b.Error(err)
	}
}

func (s sealed) verify(b *testing.B) {
	if got := digest.Sum(s.stored); !bytes.Equal(got[:], s.sum[:]) {
		b.Error("digest differs")
	}
}

// BenchmarkOpen decrypts on one core. A pull opens in place; here the stored
// segment is needed again.
func BenchmarkOpen(b *testing.B) {
	s := newSealed(b)
	plain := make([]byte, 0, segmentSize)
	b.SetBytes(segmentSize)
	for b.Loop() {
		s.open(b, plain)
	}
}

// BenchmarkVerifyAndOpen is what a pull of the encrypted profile computes for
// every byte, on one core.
func BenchmarkVerifyAndOpen(b *testing.B) {
	s := newSealed(b)
	plain := make([]byte, 0, segmentSize)
	b.SetBytes(segmentSize)
	for b.Loop() {
		s.verify(b)
		s.open(b, plain)
	}
}

// BenchmarkVerifyAndOpenParallel is the same on all cores.
func BenchmarkVerifyAndOpenParallel(b *testing.B) {
	s := newSealed(b)
	b.SetBytes(segmentSize)
	b.RunParallel(func(pb *testing.PB) {
		plain := make([]byte, 0, segmentSize)
		for pb.Next() {
			s.verify(b)
			s.open(b, plain)
		}
	})
}
