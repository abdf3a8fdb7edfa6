// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
)

const segmentSize = 1 << 16

func newPart(t testing.TB, length int64) (*encrypt.Key, encrypt.Part) {
	t.Helper()
	k := encrypt.NewKey()
	t.Cleanup(func() { k.Close() })
	p := encrypt.Part{Layer: 3, Length: length, SegmentSize: segmentSize}
	rand.Read(p.ArtifactID[:])
	return k, p
}

func newSealer(t testing.TB, k *encrypt.Key, p encrypt.Part) (*encrypt.PartSealer, []byte) {
	t.Helper()
	s, err := encrypt.NewPartSealer(k, p)
	if err != nil {
		t.Fatal(err)
	}
	header := s.Header()
	return s, header[:]
}

func newOpener(t testing.TB, k encrypt.PartKeys, p encrypt.Part, header []byte) *encrypt.PartOpener {
	t.Helper()
	o, err := encrypt.NewPartOpener(k, p, header)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// sealAll returns the segments of plain.
func sealAll(t testing.TB, s *encrypt.PartSealer, plain []byte) [][]byte {
	t.Helper()
	pieces := slices.Collect(slices.Chunk(plain, segmentSize))
	if len(pieces) == 0 {
		pieces = [][]byte{nil}
	}
	for i, piece := range pieces {
		var err error
		if pieces[i], err = s.SealSegment(nil, int64(i), piece); err != nil {
			t.Fatal(err)
		}
	}
	return pieces
}

// TestPartRoundTrip covers the lengths around the segment borders, in parallel.
func TestPartRoundTrip(t *testing.T) {
	for _, segments := range []int{0, 1, 2, 5} {
		for _, delta := range []int{-1, 0, 1} {
			length := segments*segmentSize + delta
			if length < 0 {
				continue
			}
			t.Run(fmt.Sprint(length), func(t *testing.T) {
				k, p := newPart(t, int64(length))
				s, header := newSealer(t, k, p)
				o := newOpener(t, k, p, header)
				plain, got := make([]byte, length), make([]byte, length)
				rand.Read(plain)
				n := p.Segments()
				if want := max(1, (length+segmentSize-1)/segmentSize); n != int64(want) {
					t.Fatalf("%d segments, want %d", n, want)
				}
				var wg sync.WaitGroup
				for i := range n {
					wg.Go(func() {
						from := int(i) * segmentSize
						to := min(from+segmentSize, length)
						stored, err := s.SealSegment(nil, i, plain[from:to])
						if err != nil {
							t.Error(err)
							return
						}
						if len(stored) != to-from+encrypt.SegmentOverhead {
							t.Errorf("segment %d is stored in %d bytes", i, len(stored))
						}
						if _, err := o.OpenSegment(got[from:from:to], i, stored); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if !bytes.Equal(got, plain) {
					t.Error("other plaintext")
				}
			})
		}
	}
}

// TestSealerSealsAPositionOnce is K37.
func TestSealerSealsAPositionOnce(t *testing.T) {
	k, p := newPart(t, 130*segmentSize)
	s, header := newSealer(t, k, p)
	plain := make([]byte, segmentSize)
	if _, err := s.SealSegment(nil, 7, plain[1:]); err == nil {
		t.Fatal("sealed a segment of another length")
	}
	var sealed atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := s.SealSegment(nil, 7, plain); err == nil {
				sealed.Add(1)
			}
		})
	}
	wg.Wait()
	if n := sealed.Load(); n != 1 {
		t.Errorf("position 7 sealed %d times", n)
	}
	for _, i := range []int64{6, 8, 71, 129} {
		if _, err := s.SealSegment(nil, i, plain); err != nil {
			t.Errorf("position %d: %v", i, err)
		}
	}
	if _, again := newSealer(t, k, p); bytes.Equal(header, again) {
		t.Error("a second attempt has the FLOE IV of the first")
	}
}

func TestPositionsAndLengthsComeFromGeometry(t *testing.T) {
	k, p := newPart(t, 2*segmentSize+100)
	s, header := newSealer(t, k, p)
	o := newOpener(t, k, p, header)
	full := make([]byte, segmentSize)
	for _, test := range []struct {
		k int64
		n int
	}{{-1, segmentSize}, {3, 100}, {3, 0}, {2, segmentSize}, {2, 99}, {2, 101}, {2, 0}, {1, 100}, {0, segmentSize - 1}, {1 << 40, 100}} {
		if _, err := s.SealSegment(nil, test.k, full[:test.n]); err == nil {
			t.Errorf("sealed %d bytes as segment %d", test.n, test.k)
		}
		if _, err := o.OpenSegment(nil, test.k, make([]byte, test.n+encrypt.SegmentOverhead)); err == nil || errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("segment %d of %d bytes: error %v, want one about geometry", test.k, test.n, err)
		}
	}
	if _, err := o.OpenSegment(nil, 0, nil); err == nil || errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("no bytes: error %v, want one about geometry", err)
	}
}

func TestPartRefusesOtherGeometry(t *testing.T) {
	k, p := newPart(t, 100)
	_, header := newSealer(t, k, p)
	for _, size := range []int{0, -1, 1, 1 << 15, 1<<16 + 1, 1 << 17, 1 << 25} {
		p := p
		p.SegmentSize = size
		if _, err := encrypt.NewPartSealer(k, p); err == nil {
			t.Errorf("sealer with segments of %d", size)
		}
		if _, err := encrypt.NewPartOpener(k, p, header); err == nil || errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("opener with segments of %d: error %v", size, err)
		}
	}
	for _, length := range []int64{-1, 8<<30 + 1, 1<<50 + 1} {
		p := p
		p.Length = length
		if _, err := encrypt.NewPartSealer(k, p); err == nil {
			t.Errorf("sealer with length %d", length)
		}
	}
	p.Length = 1<<50 + 1
	if _, err := encrypt.NewPartOpener(k, p, header); err == nil || errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("opener with length %d: error %v", p.Length, err)
	}
}

// TestHeaderBindsGeometry: artifact, ordinal, length and segment size are
// associated data, so a layer cannot stand in for another (FORMAT.md §6.1).
func TestHeaderBindsGeometry(t *testing.T) {
	k, p := newPart(t, segmentSize)
	_, header := newSealer(t, k, p)
	other := encrypt.NewKey()
	defer other.Close()
	if _, err := encrypt.NewPartOpener(other, p, header); !errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("another key: error %v, want ErrDecrypt", err)
	}
	for name, change := range map[string]func(*encrypt.Part){
		"artifact":     func(p *encrypt.Part) { p.ArtifactID[15] ^= 1 },
		"layer":        func(p *encrypt.Part) { p.Layer++ },
		"length":       func(p *encrypt.Part) { p.Length-- },
		"segment size": func(p *encrypt.Part) { p.SegmentSize = 1 << 18 },
	} {
		p := p
		change(&p)
		if _, err := encrypt.NewPartOpener(k, p, header); !errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("another %s: error %v, want ErrDecrypt", name, err)
		}
	}
}

// TestRestoredSegmentIsTheStoredOne, to the byte, at every kind of length.
func TestRestoredSegmentIsTheStoredOne(t *testing.T) {
	for _, length := range []int64{0, 1, 15, 16, 17, segmentSize - 1, segmentSize, 2*segmentSize + 5} {
		k, p := newPart(t, length)
		s, header := newSealer(t, k, p)
		o := newOpener(t, k, p, header)
		plain := make([]byte, length)
		rand.Read(plain)
		for i, want := range sealAll(t, s, plain) {
			frame := encrypt.Frame(want)
			content, err := o.OpenSegment(nil, int64(i), want)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(want))
			rand.Read(got)
			copy(got[encrypt.PlaintextOffset:], content)
			if err := o.RestoreSegment(got, int64(i), frame); err != nil || !bytes.Equal(got, want) {
				t.Errorf("length %d, segment %d: not what was stored, %v", length, i, err)
			}
			if err := o.RestoreSegment(append(got, 0), int64(i), frame); err == nil {
				t.Errorf("length %d, segment %d: a byte too many is taken", length, i)
			}
			if err := o.RestoreSegment(got, p.Segments(), frame); err == nil {
				t.Errorf("length %d: a segment too many is taken", length)
			}
		}
	}
}

func TestOpenSegmentLeavesNoPlaintextOnFailure(t *testing.T) {
	k, p := newPart(t, 2*segmentSize)
	s, header := newSealer(t, k, p)
	o := newOpener(t, k, p, header)
	stored := sealAll(t, s, bytes.Repeat([]byte("secret!!"), 2*segmentSize/8))
	stored[0][len(stored[0])-1] ^= 1
	dst := make([]byte, 0, segmentSize)
	if out, err := o.OpenSegment(dst, 0, stored[0]); !errors.Is(err, encrypt.ErrDecrypt) || out != nil {
		t.Fatalf("%d bytes, error %v, want ErrDecrypt", len(out), err)
	}
	if bytes.Contains(dst[:segmentSize], []byte("secret")) {
		t.Error("plaintext of a segment that failed is in dst")
	}
}

func FuzzOpenSegment(f *testing.F) {
	k, p := newPart(f, segmentSize+10)
	s, header := newSealer(f, k, p)
	o := newOpener(f, k, p, header)
	for i, stored := range sealAll(f, s, make([]byte, p.Length)) {
		f.Add(int64(i), stored)
	}
	f.Add(int64(1), make([]byte, 42))
	f.Add(int64(-1), []byte{})
	f.Fuzz(func(t *testing.T, i int64, stored []byte) {
		out, err := o.OpenSegment(nil, i, stored)
		if err != nil && out != nil {
			t.Errorf("%d bytes with error %v", len(out), err)
		}
		if err == nil && len(out) != len(stored)-encrypt.SegmentOverhead {
			t.Errorf("%d bytes of plaintext from %d stored", len(out), len(stored))
		}
	})
}

func BenchmarkPart(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20, 4 << 20} {
		k := encrypt.NewKey()
		p := encrypt.Part{Length: int64(size), SegmentSize: size}
		s, header := newSealer(b, k, p)
		o := newOpener(b, k, p, header)
		plain := make([]byte, size)
		stored, err := s.SealSegment(nil, 0, plain)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("open/%dK", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := o.OpenSegment(plain[:0], 0, stored); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("seal/%dK", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				// A position is sealed once: each round pays for a sealer.
				s, _ := newSealer(b, k, p)
				if _, err := s.SealSegment(stored[:0], 0, plain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
