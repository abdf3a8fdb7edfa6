// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"fmt"
	"testing"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// encodeIndex makes the index of a plain model of so many files of 2 GiB.
func encodeIndex(b *testing.B, files int) []byte {
	b.Helper()
	const size = 2 << 30
	h := index.Header{FormatVersion: 1, Profile: index.Plain, SegmentSize: segmentSize}
	var segments int64
	for i := range files {
		g := index.GeometryOf(index.Plain, size, segmentSize)
		segments += g.Count()
		h.Layers = append(h.Layers, index.Layer{Digest: godigest.FromString(fmt.Sprint(i)), Size: g.Blob()})
		h.Files = append(h.Files, index.File{
			Path: fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, files), Role: "weight", Size: size,
			Runs: []index.Run{{Layer: i, Length: size}},
		})
	}
	x, err := index.New(h, make([]byte, segments*digest.Size))
	if err != nil {
		b.Fatal(err)
	}
	encoded, err := x.Encode()
	if err != nil {
		b.Fatal(err)
	}
	return encoded
}

// BenchmarkParseIndex is what stands between the manifest and the first byte:
// bytes are those of the index.
func BenchmarkParseIndex(b *testing.B) {
	for _, files := range []int{1, 100} {
		b.Run(fmt.Sprintf("%dGiB", 2*files), func(b *testing.B) {
			encoded := encodeIndex(b, files)
			b.SetBytes(int64(len(encoded)))
			for b.Loop() {
				if _, err := index.Parse(encoded); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
