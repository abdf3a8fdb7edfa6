// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package floe_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/internal/floe"
)

// small has 16 bytes of plaintext in a segment and a new key every 4 segments.
var small = floe.Params{Segment: 16 + floe.Overhead, Rotation: 2}

func pair(t testing.TB, p floe.Params) (*floe.Sealer, *floe.Opener) {
	t.Helper()
	key := [floe.KeySize]byte{1}
	s, err := floe.NewSealer(&key, []byte("aad"), p)
	if err != nil {
		t.Fatal(err)
	}
	header := s.Header()
	o, err := floe.NewOpener(&key, []byte("aad"), header[:], p)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// TestSealedOpens covers every length around every segment border up to 11
// segments, which crosses two key rotations, in a random order of segments.
func TestSealedOpens(t *testing.T) {
	const size = 16
	for length := range 11*size + 2 {
		s, o := pair(t, small)
		plain := make([]byte, length)
		for i := range plain {
			plain[i] = byte(i)
		}
		pieces := slices.Collect(slices.Chunk(plain, size))
		if length == 0 {
			pieces = [][]byte{{}}
		}
		got := make([]byte, length)
		for _, k := range rand.Perm(len(pieces)) {
			final := k == len(pieces)-1
			segment, err := s.Seal(nil, pieces[k], uint64(k), final)
			if err != nil {
				t.Fatalf("length %d: seal %d: %v", length, k, err)
			}
			if len(segment) != len(pieces[k])+floe.Overhead {
				t.Fatalf("length %d: segment %d has %d bytes", length, k, len(segment))
			}
			if _, err := o.Open(got[:k*size:k*size+len(pieces[k])], segment, uint64(k), final); err != nil {
				t.Fatalf("length %d: open %d: %v", length, k, err)
			}
		}
		if !bytes.Equal(got, plain) {
			t.Fatalf("length %d: other plaintext", length)
		}
	}
}

// TestPositionsHave64Bits guards against the truncated counters that other
// designs shipped: positions that agree in their low bits are different.
func TestPositionsHave64Bits(t *testing.T) {
	p := floe.Params{Segment: 16 + floe.Overhead, Rotation: floe.Rotation}
	s, o := pair(t, p)
	plain := make([]byte, 16)
	for _, at := range []uint64{0, 1<<20 - 1, 1 << 20, 1<<32 - 1, 1 << 32, 1<<32 + 5, floe.MaxSegments - 1} {
		segment, err := s.Seal(nil, plain, at, false)
		if err != nil {
			t.Fatalf("seal %d: %v", at, err)
		}
		if _, err := o.Open(nil, segment, at, false); err != nil {
			t.Errorf("open %d: %v", at, err)
		}
		for _, other := range []uint64{at ^ 1, at ^ 1<<20, at ^ 1<<32, at ^ 1<<39} {
			if _, err := o.Open(nil, segment, other, false); err != floe.ErrOpen {
				t.Errorf("segment %d opened at %d: error %v, want ErrOpen", at, other, err)
			}
		}
	}
	if _, err := s.Seal(nil, plain, floe.MaxSegments, true); err == nil {
		t.Error("sealed beyond the last position")
	}
	if _, err := o.Open(nil, make([]byte, p.Segment), floe.MaxSegments, true); err != floe.ErrOpen {
		t.Errorf("open beyond the last position: error %v, want ErrOpen", err)
	}
}

func TestOpenRejectsEveryFlippedBit(t *testing.T) {
	s, o := pair(t, small)
	for _, final := range []bool{false, true} {
		segment, err := s.Seal(nil, make([]byte, 16), 3, final)
		if err != nil {
			t.Fatal(err)
		}
		for bit := range len(segment) * 8 {
			segment[bit/8] ^= 1 << (bit % 8)
			dst := bytes.Repeat([]byte{0xAA}, 16)
			if out, err := o.Open(dst[:0], segment, 3, final); err != floe.ErrOpen || out != nil {
				t.Errorf("final %t, bit %d flipped: %d bytes, error %v", final, bit, len(out), err)
			}
			if untouched, zero := bytes.Repeat([]byte{0xAA}, 16), make([]byte, 16); !bytes.Equal(dst, untouched) && !bytes.Equal(dst, zero) {
				t.Errorf("final %t, bit %d flipped: plaintext left behind", final, bit)
			}
			segment[bit/8] ^= 1 << (bit % 8)
		}
		for n := range segment {
			if _, err := o.Open(nil, segment[:n], 3, final); err != floe.ErrOpen {
				t.Errorf("final %t, %d bytes: error %v, want ErrOpen", final, n, err)
			}
		}
		if _, err := o.Open(nil, append(segment, 0), 3, final); err != floe.ErrOpen {
			t.Errorf("final %t, a byte more: error %v, want ErrOpen", final, err)
		}
		if _, err := o.Open(nil, segment, 3, !final); err != floe.ErrOpen {
			t.Errorf("final %t taken for %t: error %v, want ErrOpen", final, !final, err)
		}
	}
}

// TestOpenRejectsFinalLengthWord: the word is outside the AEAD, and with the
// right flag and tag nothing but the comparison notices it.
func TestOpenRejectsFinalLengthWord(t *testing.T) {
	s, o := pair(t, small)
	inner, _ := s.Seal(nil, make([]byte, 16), 0, false)
	last, _ := s.Seal(nil, make([]byte, 16), 1, true)
	word := slices.Clone(inner[:4])
	copy(inner, last[:4])
	copy(last, word)
	if _, err := o.Open(nil, inner, 0, false); err != floe.ErrOpen {
		t.Errorf("inner segment with the word of a final one: error %v, want ErrOpen", err)
	}
	if _, err := o.Open(nil, last, 1, true); err != floe.ErrOpen {
		t.Errorf("final segment with the word of an inner one: error %v, want ErrOpen", err)
	}
}

func TestHeaderCommits(t *testing.T) {
	key := [floe.KeySize]byte{1}
	s, _ := pair(t, small)
	header := s.Header()
	for bit := range len(header) * 8 {
		h := header
		h[bit/8] ^= 1 << (bit % 8)
		if _, err := floe.NewOpener(&key, []byte("aad"), h[:], small); err != floe.ErrOpen {
			t.Errorf("bit %d flipped: error %v, want ErrOpen", bit, err)
		}
	}
	for name, open := range map[string]func() (*floe.Opener, error){
		"another key":  func() (*floe.Opener, error) { return floe.NewOpener(&[32]byte{2}, []byte("aad"), header[:], small) },
		"another aad":  func() (*floe.Opener, error) { return floe.NewOpener(&key, []byte("aae"), header[:], small) },
		"short header": func() (*floe.Opener, error) { return floe.NewOpener(&key, []byte("aad"), header[:73], small) },
		"long header":  func() (*floe.Opener, error) { return floe.NewOpener(&key, []byte("aad"), append(header[:], 0), small) },
		"another segment length": func() (*floe.Opener, error) {
			return floe.NewOpener(&key, []byte("aad"), header[:], floe.Params{Segment: 49})
		},
	} {
		if _, err := open(); err != floe.ErrOpen {
			t.Errorf("%s: error %v, want ErrOpen", name, err)
		}
	}
}

func TestHeaderIsFresh(t *testing.T) {
	a, _ := pair(t, small)
	b, _ := pair(t, small)
	if a.Header() == b.Header() {
		t.Error("two messages share an IV")
	}
}

func TestSealRefusesLengthsThatDoNotFit(t *testing.T) {
	s, _ := pair(t, small)
	for _, test := range []struct {
		n     int
		final bool
	}{{15, false}, {17, false}, {0, false}, {17, true}} {
		if _, err := s.Seal(nil, make([]byte, test.n), 0, test.final); err == nil {
			t.Errorf("sealed %d bytes, final %t, in segments of 16", test.n, test.final)
		}
	}
}

func TestParamsAreBounded(t *testing.T) {
	key := new([floe.KeySize]byte)
	for _, p := range []floe.Params{{}, {Segment: floe.Overhead}, {Segment: -1}, {Segment: floe.MaxSegment + 1}, {Segment: 64, Rotation: 64}} {
		if _, err := floe.NewSealer(key, nil, p); err == nil {
			t.Errorf("sealer with %+v", p)
		}
		if _, err := floe.NewOpener(key, nil, make([]byte, floe.HeaderSize), p); err == nil || errors.Is(err, floe.ErrOpen) {
			t.Errorf("opener with %+v: error %v", p, err)
		}
	}
}

// TestNoCopy holds Seal and Open to the caller's memory: a segment of 16 MiB
// must not cost another 16 MiB.
func TestNoCopy(t *testing.T) {
	s, o := pair(t, floe.Params{Segment: 1<<16 + floe.Overhead, Rotation: floe.Rotation})
	plain := make([]byte, 1<<16)
	stored := make([]byte, 0, len(plain)+floe.Overhead)
	sealed, err := s.Seal(stored, plain, 0, true)
	if err != nil || &sealed[0] != &stored[:1][0] {
		t.Fatalf("sealed into other memory (error %v)", err)
	}
	dst := make([]byte, 3, 3+len(plain))
	opened, err := o.Open(dst, sealed, 0, true)
	if err != nil || &opened[0] != &dst[0] || len(opened) != cap(dst) {
		t.Fatalf("opened into other memory (error %v)", err)
	}
}

func TestOpenInPlace(t *testing.T) {
	s, o := pair(t, small)
	segment, _ := s.Seal(nil, []byte("0123456789abcdef"), 0, true)
	out, err := o.Open(segment[4:4], segment, 0, true)
	if err != nil || string(out) != "0123456789abcdef" {
		t.Errorf("got %q, %v", out, err)
	}
}

// TestConcurrentUse crosses a key rotation with every segment; the race
// detector watches.
func TestConcurrentUse(t *testing.T) {
	s, o := pair(t, floe.Params{Segment: 16 + floe.Overhead, Rotation: 0})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for k := range 64 {
				want := fmt.Sprintf("segment %02d of %02d", k, g)
				segment, err := s.Seal(nil, []byte(want), uint64(g*64+k), false)
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := o.Open(nil, segment, uint64(g*64+k), false); err != nil || string(got) != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

func FuzzOpen(f *testing.F) {
	s, o := pair(f, small)
	for _, final := range []bool{false, true} {
		segment, _ := s.Seal(nil, make([]byte, 16), 0, final)
		f.Add(segment, uint64(0), final)
	}
	f.Add([]byte{}, uint64(1<<63), true)
	f.Add(append([]byte{0, 0, 0, 32}, make([]byte, 28)...), uint64(1), true)
	f.Fuzz(func(t *testing.T, segment []byte, position uint64, final bool) {
		// The IV of the message is new in every process, so that only bytes
		// sealed above open; what matters is that nothing panics or leaks.
		if out, err := o.Open(nil, segment, position, final); err != nil && (err != floe.ErrOpen || out != nil) {
			t.Errorf("%d bytes, error %v", len(out), err)
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	for _, size := range []int{64 << 10, 1 << 20, 4 << 20} {
		s, o := pair(b, floe.Params{Segment: size + floe.Overhead, Rotation: floe.Rotation})
		plain, stored := make([]byte, size), make([]byte, 0, size+floe.Overhead)
		b.Run(fmt.Sprintf("seal/%dK", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				s.Seal(stored, plain, 0, false)
			}
		})
		segment, _ := s.Seal(nil, plain, 0, false)
		b.Run(fmt.Sprintf("open/%dK", size>>10), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := o.Open(plain[:0], segment, 0, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
