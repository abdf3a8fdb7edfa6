// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
)

// compareBlob makes a Blob of parts, of which those that skip names are only
// written, and compares every digest. So many parts that follow each other are
// given together.
func compareBlob(t testing.TB, l *digest.Lanes, parts [][]byte, together int, skip func(i int) bool) {
	t.Helper()
	b, want := l.NewBlob(), sha256.New()
	for i := 0; i < len(parts); {
		if skip(i) {
			b.Write(parts[i])
			want.Write(parts[i])
			i++
			continue
		}
		end := i + 1
		for end < min(len(parts), i+together) && !skip(end) {
			end++
		}
		got := make([][digest.Size]byte, end-i)
		b.Parts(got, parts[i:end])
		for j, p := range parts[i:end] {
			want.Write(p)
			if own := sha256.Sum256(p); got[j] != own {
				t.Fatalf("part %d of %d, %d bytes, in a group of %d: got %x, want %x", i+j, len(parts), len(p), end-i, got[j], own)
			}
		}
		// To ask does not end it.
		if got, err := b.Sum(); i%3 == 0 && (err != nil || !bytes.Equal(got[:], want.Sum(nil))) {
			t.Fatalf("blob before part %d: got %x, %v, want %x", end, got, err, want.Sum(nil))
		}
		i = end
	}
	if got, err := b.Sum(); err != nil || !bytes.Equal(got[:], want.Sum(nil)) {
		t.Fatalf("blob of %d parts: got %x, %v, want %x", len(parts), got, err, want.Sum(nil))
	}
}

func TestBlobEqualsStandardLibrary(t *testing.T) {
	cases := 20_000
	if testing.Short() {
		cases = 2_000
	}
	data := randomBytes(8 << 10)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		r := rand.New(rand.NewPCG(3, 4))
		for range cases {
			parts := make([][]byte, r.IntN(40))
			limit := 1 << (4 + r.IntN(9))
			for i := range parts {
				start := r.IntN(len(data) - limit)
				parts[i] = data[start : start+r.IntN(limit+1)]
			}
			every, odd := 2+r.IntN(40), r.IntN(2)
			compareBlob(t, l, parts, 1+r.IntN(20), func(i int) bool { return i%every == odd })
		}
	})
}

func TestBlobBeginsPartsAnywhereInABlock(t *testing.T) {
	data := randomBytes(1 << 10)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		for before := range 130 {
			for n := range 200 {
				compareBlob(t, l, [][]byte{data[:before], data[before:][:n], data[:3]}, 2, func(i int) bool { return i == 0 })
			}
		}
	})
}

func TestBlobHashesSegments(t *testing.T) {
	const segment = 1<<20 + 32
	data := randomBytes(3 * segment)
	var long [][]byte // as many as three groups, and a short one at the end
	for i := range 40 {
		long = append(long, data[i*40_961:][:segment])
	}
	long = append(long, data[:70_001])
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		compareBlob(t, l, [][]byte{data[:74], data[:segment], data[segment:][:segment], data[70_001:][:segment], data[:70_001]}, 1, func(i int) bool { return i == 0 })
		compareBlob(t, l, [][]byte{data[:1<<20], data[1<<20:], nil}, 1, func(int) bool { return false })
		compareBlob(t, l, long, len(long), func(i int) bool { return i == 0 })
		compareBlob(t, l, long, 12, func(i int) bool { return false })
	})
}

func TestBlobRefusesTooFewDigests(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Parts hashed two parts into one digest")
		}
	}()
	lanesOf(t, digest.Auto).NewBlob().Parts(make([][digest.Size]byte, 1), make([][]byte, 2))
}

func TestBlobAllocatesNothing(t *testing.T) {
	for _, p := range []digest.Path{digest.Auto, digest.Pairs} {
		b := lanesOf(t, p).NewBlob()
		if b.Width() == 1 && p == digest.Auto {
			continue // hashed by two goroutines, or as pairs
		}
		sums, parts := make([][digest.Size]byte, 16), make([][]byte, 16)
		for i := range parts {
			parts[i] = make([]byte, 3000)
		}
		if n := testing.AllocsPerRun(100, func() { b.Parts(sums, parts) }); n != 0 {
			t.Errorf("path %d: got %v allocations", p, n)
		}
		if n := testing.AllocsPerRun(100, func() { b.Part(parts[0]) }); n != 0 {
			t.Errorf("path %d: got %v allocations for one part", p, n)
		}
	}
}

// FuzzBlob cuts data into parts of the lengths in cuts.
func FuzzBlob(f *testing.F) {
	f.Add([]byte("abc"), []byte{3})
	f.Add(bytes.Repeat([]byte{0xff}, 300), []byte{10, 55, 56, 63, 64, 65, 0})
	f.Add(bytes.Repeat([]byte("segment"), 700), bytes.Repeat([]byte{119, 120, 255}, 7))
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		var parts [][]byte
		for _, n := range cuts {
			cut := min(int(n), len(data))
			parts, data = append(parts, data[:cut]), data[cut:]
		}
		parts = append(parts, data)
		for _, p := range paths {
			l, err := digest.NewLanes(p.path)
			if errors.Is(err, errors.ErrUnsupported) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			compareBlob(t, l, parts, 1, func(i int) bool { return i%5 == len(cuts)%5 })
			compareBlob(t, l, parts, 16, func(i int) bool { return i%20 == len(cuts)%20 })
		}
	})
}

// BenchmarkBlob hashes segments and the blob they make up. Run it with
// GOMAXPROCS=1 for the speed of one core.
func BenchmarkBlob(b *testing.B) {
	const count, segment = 16, 1 << 20
	data := randomBytes(count * segment)
	sums, parts := make([][digest.Size]byte, count), make([][]byte, count)
	for i := range parts {
		parts[i] = data[i*segment:][:segment]
	}
	for _, p := range paths {
		for _, together := range []int{1, 4, 8, count} {
			b.Run(fmt.Sprintf("%s/%d", p.name, together), func(b *testing.B) {
				l := lanesOf(b, p.path)
				b.SetBytes(count * segment)
				for b.Loop() {
					blob := l.NewBlob()
					for i := 0; i < count; i += together {
						blob.Parts(sums[i:i+together], parts[i:i+together])
					}
					if _, err := blob.Sum(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
