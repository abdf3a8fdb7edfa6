// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
)

// compareBlob makes a Blob of parts, of which those that skip names are only
// written, and compares every digest.
func compareBlob(t testing.TB, l *digest.Lanes, parts [][]byte, skip func(i int) bool) {
	t.Helper()
	b, want := l.NewBlob(), sha256.New()
	for i, p := range parts {
		want.Write(p)
		if skip(i) {
			b.Write(p)
		} else if got, own := b.Part(p), sha256.Sum256(p); got != own {
			t.Fatalf("part %d of %d, %d bytes: got %x, want %x", i, len(parts), len(p), got, own)
		}
		// To ask does not end it.
		if i%3 != 0 {
			continue
		}
		if got, err := b.Sum(); err != nil || !bytes.Equal(got[:], want.Sum(nil)) {
			t.Fatalf("blob after part %d: got %x, %v, want %x", i, got, err, want.Sum(nil))
		}
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
			parts := make([][]byte, r.IntN(8))
			limit := 1 << (4 + r.IntN(8))
			for i := range parts {
				start := r.IntN(len(data) - limit)
				parts[i] = data[start : start+r.IntN(limit+1)]
			}
			odd := r.IntN(2)
			compareBlob(t, l, parts, func(i int) bool { return i%4 == odd })
		}
	})
}

func TestBlobBeginsPartsAnywhereInABlock(t *testing.T) {
	data := randomBytes(1 << 10)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		for before := range 130 {
			for n := range 200 {
				compareBlob(t, l, [][]byte{data[:before], data[before:][:n], data[:3]}, func(i int) bool { return i == 0 })
			}
		}
	})
}

func TestBlobHashesSegments(t *testing.T) {
	const segment = 1<<20 + 32
	data := randomBytes(3 * segment)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		compareBlob(t, l, [][]byte{data[:74], data[:segment], data[segment:][:segment], data[70_001:][:segment], data[:70_001]}, func(i int) bool { return i == 0 })
		compareBlob(t, l, [][]byte{data[:1<<20], data[1<<20:], nil}, func(int) bool { return false })
	})
}

func TestBlobAllocatesNothing(t *testing.T) {
	b, part := lanesOf(t, digest.Pairs).NewBlob(), make([]byte, 1000)
	if n := testing.AllocsPerRun(100, func() { b.Part(part) }); n != 0 {
		t.Errorf("got %v allocations", n)
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
			compareBlob(t, l, parts, func(i int) bool { return i%5 == len(cuts)%5 })
		}
	})
}

// BenchmarkBlob hashes segments and the blob they make up.
func BenchmarkBlob(b *testing.B) {
	const count, segment = 16, 1 << 20
	data := randomBytes(count * segment)
	for _, p := range paths[:3] {
		b.Run(p.name, func(b *testing.B) {
			l := lanesOf(b, p.path)
			b.SetBytes(count * segment)
			for b.Loop() {
				blob := l.NewBlob()
				for i := range count {
					blob.Part(data[i*segment:][:segment])
				}
				if _, err := blob.Sum(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
