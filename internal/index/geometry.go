// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index

import "fmt"

// DefaultSegmentSize is S for artifacts of up to LargeArtifact bytes,
// LargeSegmentSize above. FORMAT.md §4.
const (
	DefaultSegmentSize = 1 << 20
	LargeSegmentSize   = 4 << 20
	LargeArtifact      = 256 << 30
)

// Sizes of a FLOE message beside its plaintext. FORMAT.md §5.
const (
	SealHeader   = 74
	SealOverhead = 32
)

var segmentSizes = []int64{64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}

// Geometry is how one layer is cut into segments. FORMAT.md §5.
type Geometry struct {
	Content int64 // L: bytes of plaintext
	segment int64 // S
	sealed  bool
}

// NewGeometry computes the geometry of a layer from the size of its blob.
func NewGeometry(p Profile, blob, segment int64) (Geometry, error) {
	if blob < 0 || blob > maxLayerSize {
		return Geometry{}, fmt.Errorf("size %d, want 0 to %d", blob, int64(maxLayerSize))
	}
	if p == Plain {
		return Geometry{Content: blob, segment: segment}, nil
	}
	if blob < SealHeader+SealOverhead {
		return Geometry{}, fmt.Errorf("size %d is less than an empty FLOE message", blob)
	}
	n := ceil(blob-SealHeader, segment+SealOverhead)
	g := Geometry{Content: blob - SealHeader - SealOverhead*n, segment: segment, sealed: true}
	if g.Content < 0 || g.Count() != n {
		return Geometry{}, fmt.Errorf("size %d is not that of a FLOE message with segments of %d", blob, segment)
	}
	return g, nil
}

// GeometryOf computes the geometry of a layer from the length of its content.
func GeometryOf(p Profile, content, segment int64) Geometry {
	return Geometry{Content: content, segment: segment, sealed: p == Encrypted}
}

// Count is the number of segments.
func (g Geometry) Count() int64 {
	n := ceil(g.Content, g.segment)
	if g.sealed {
		return max(1, n)
	}
	return n
}

// Blob is the size of the layer as the registry stores it.
func (g Geometry) Blob() int64 {
	if !g.sealed {
		return g.Content
	}
	return SealHeader + g.Content + SealOverhead*g.Count()
}

// Range says which content bytes segment k covers.
func (g Geometry) Range(k int64) (offset, length int64) {
	offset = k * g.segment
	return offset, min(g.segment, g.Content-offset)
}

// Stored says where in the blob segment k is stored, and in how many bytes.
func (g Geometry) Stored(k int64) (offset, length int64) {
	offset, length = g.Range(k)
	if g.sealed {
		return SealHeader + k*(g.segment+SealOverhead), length + SealOverhead
	}
	return offset, length
}

// At is the segment that holds the content byte at offset.
func (g Geometry) At(offset int64) int64 { return offset / g.segment }

func ceil(a, b int64) int64 {
	if a <= 0 {
		return 0
	}
	return (a-1)/b + 1
}
