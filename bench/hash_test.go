// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package bench measures the stages of a transfer, each by itself, and whole
// transfers within one process. Numbers beside other tools come from ./compare.
package bench

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// segmentSize is that of every model up to 256 GiB.
const segmentSize = index.DefaultSegmentSize

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// BenchmarkHashSegment is what one core hashes.
func BenchmarkHashSegment(b *testing.B) {
	segment := random(segmentSize)
	b.SetBytes(segmentSize)
	for b.Loop() {
		digest.Sum(segment)
	}
}

// BenchmarkHashSegments is what all cores hash, each its own segment.
func BenchmarkHashSegments(b *testing.B) {
	b.SetBytes(segmentSize)
	b.RunParallel(func(pb *testing.PB) {
		segment := random(segmentSize)
		for pb.Next() {
			digest.Sum(segment)
		}
	})
}

// batch is a batch of segments, and lanes on a path that hash it.
func batch(b *testing.B, path digest.Path) (lanes *digest.Lanes, in [][]byte, out [][digest.Size]byte) {
	lanes, err := digest.NewLanes(path)
	if errors.Is(err, errors.ErrUnsupported) {
		b.Skip("not on this processor, or not in this build")
	}
	if err != nil {
		b.Fatal(err)
	}
	in, out = make([][]byte, 16), make([][digest.Size]byte, 16)
	for i := range in {
		in[i] = random(segmentSize)
	}
	b.SetBytes(int64(len(in)) * segmentSize)
	return lanes, in, out
}

// BenchmarkHashLanes is what one core hashes of a batch of segments.
func BenchmarkHashLanes(b *testing.B) {
	for _, p := range []struct {
		name string
		path digest.Path
	}{{"single", digest.Single}, {"pairs", digest.Pairs}, {"sixteen", digest.Sixteen}} {
		b.Run(p.name, func(b *testing.B) {
			lanes, in, out := batch(b, p.path)
			for b.Loop() {
				if err := lanes.Sum(out, in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkHashBlob is what one core hashes while a layer is pushed: the layer,
// in order, and each of its segments.
func BenchmarkHashBlob(b *testing.B) {
	for _, p := range []struct {
		name string
		path digest.Path
	}{{"auto", digest.Auto}, {"pairs", digest.Pairs}} {
		b.Run(p.name, func(b *testing.B) {
			lanes, in, out := batch(b, p.path)
			for b.Loop() {
				lanes.NewBlob().Parts(out, in)
			}
		})
	}
}
