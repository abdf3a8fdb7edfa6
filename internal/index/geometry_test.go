// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index_test

import (
	"fmt"
	"testing"

	"github.com/modelsec/modelsec-go/internal/index"
)

var (
	segmentSizes = []int64{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}
	profiles     = []index.Profile{index.Plain, index.Encrypted}
)

// lengths are content lengths around the borders of segments, up to the
// largest layer.
func lengths(s int64) []int64 {
	var out []int64
	for _, n := range []int64{0, 1, 2, 3, 1000, 1 << 30 / s, 1<<50/(s+32) - 2} {
		for _, d := range []int64{-33, -32, -31, -1, 0, 1, 31, 32, 33} {
			if l := n*s + d; l >= 0 {
				out = append(out, l)
			}
		}
	}
	return out
}

func TestGeometryRoundTripsEveryLengthAroundASegment(t *testing.T) {
	for _, p := range profiles {
		for _, s := range segmentSizes {
			for _, content := range lengths(s) {
				of := index.GeometryOf(p, content, s)
				g, err := index.NewGeometry(p, of.Blob(), s)
				if err != nil || g != of {
					t.Errorf("%s, S = %d, L = %d: blob of %d read as %+v, %v", p, s, content, of.Blob(), g, err)
				}
			}
		}
	}
}

// TestSegmentsTileTheLayer: FORMAT.md §5, the table.
func TestSegmentsTileTheLayer(t *testing.T) {
	for _, p := range profiles {
		for _, s := range segmentSizes {
			for _, content := range lengths(s) {
				g := index.GeometryOf(p, content, s)
				name := fmt.Sprintf("%s, S = %d, L = %d", p, s, content)
				overhead, at, stored := int64(0), int64(0), int64(0)
				if p == index.Encrypted {
					overhead, stored = index.SealOverhead, index.SealHeader
				}
				n := g.Count()
				if n == 0 {
					if content != 0 || p != index.Plain || g.Blob() != 0 {
						t.Errorf("%s: no segments", name)
					}
					continue
				}
				// All of them where they are few, else the first and the last.
				for k := int64(0); k < n; k++ {
					if k == 4 && n > 10 {
						k = n - 4
						at, stored = k*s, stored+(k-4)*(s+overhead)
					}
					offset, length := g.Range(k)
					if offset != at || length > s || k < n-1 && length != s || length <= 0 && content > 0 {
						t.Fatalf("%s: segment %d covers %d bytes at %d, want them at %d", name, k, length, offset, at)
					}
					storedAt, storedLength := g.Stored(k)
					if storedAt != stored || storedLength != length+overhead {
						t.Fatalf("%s: segment %d is %d bytes at %d, want %d at %d", name, k, storedLength, storedAt, length+overhead, stored)
					}
					if content > 0 && (g.At(offset) != k || g.At(offset+length-1) != k) {
						t.Fatalf("%s: segment %d does not hold its first and last byte", name, k)
					}
					at, stored = at+length, stored+storedLength
				}
				if at != content || stored != g.Blob() {
					t.Errorf("%s: segments cover %d bytes and are stored in %d of %d", name, at, stored, g.Blob())
				}
			}
		}
	}
}

// TestNewGeometryAcceptsOnlySizesThatAWriterMakes tries every size of a blob
// of up to three segments against the sizes of all contents. K36.
func TestNewGeometryAcceptsOnlySizesThatAWriterMakes(t *testing.T) {
	const s = 64 << 10
	made := make(map[int64]int64)
	for content := range int64(3*s + 1) {
		made[index.GeometryOf(index.Encrypted, content, s).Blob()] = content
	}
	if len(made) != 3*s+1 {
		t.Errorf("%d contents have only %d sizes", 3*s+1, len(made))
	}
	for blob := range index.GeometryOf(index.Encrypted, 3*s, s).Blob() + 1 {
		g, err := index.NewGeometry(index.Encrypted, blob, s)
		content, ok := made[blob]
		if ok != (err == nil) || ok && g.Content != content {
			t.Fatalf("size %d: got %+v, %v, want %v of %d", blob, g, err, ok, content)
		}
	}
}

func TestNewGeometryRefusesSizesThatOverflow(t *testing.T) {
	for _, p := range profiles {
		for _, s := range segmentSizes {
			for _, blob := range []int64{-1, -1 << 63, 1<<50 + 1, 1 << 62, 1<<63 - 1} {
				if g, err := index.NewGeometry(p, blob, s); err == nil {
					t.Errorf("%s, S = %d, size %d: got %+v", p, s, blob, g)
				}
			}
		}
	}
}
