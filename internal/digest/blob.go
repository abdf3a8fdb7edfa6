// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"hash"
	"math/rand/v2"
	"sync"
)

// Blob hashes a message that grows part by part, and each part as a message of
// its own. With the SHA extensions both are a pair, and with AVX-512 as well many
// parts go beside the message, so that the second digest of a byte costs next to
// nothing. It is not safe for concurrent use.
type Blob struct {
	lanes *Lanes
	paired
	whole hash.Hash // where this processor has no pairs
}

// NewBlob returns an empty Blob.
func (l *Lanes) NewBlob() *Blob {
	b := &Blob{lanes: l}
	if l.kernels.pairing() {
		b.paired.reset()
	} else {
		b.whole = New()
	}
	return b
}

// Write appends p, which is not a part: nothing but the Blob is hashed. It never
// fails.
func (b *Blob) Write(p []byte) (int, error) {
	if b.whole != nil {
		return b.whole.Write(p)
	}
	b.paired.write(p)
	return len(p), nil
}

// Width returns how many parts of equal length Parts is fastest with: 16 or 1.
func (b *Blob) Width() int {
	if b.lanes.kernels.both(sixteen) || b.whole != nil {
		return max(1, b.lanes.Width())
	}
	return 1
}

// Part appends p and returns its SHA-256, as Parts does.
func (b *Blob) Part(p []byte) [Size]byte {
	if b.whole == nil {
		return b.part(p)
	}
	out := make([][Size]byte, 1)
	b.beside(out, [][]byte{p})
	return out[0]
}

// Parts appends parts in order and sets out[i] to the SHA-256 of parts[i] for all
// i. The slices must have the same length, and nobody may write to the parts
// during the call. Where this processor has no pairs, two goroutines hash.
func (b *Blob) Parts(out [][Size]byte, parts [][]byte) {
	if len(out) != len(parts) {
		panic("digest: not as many digests as parts")
	}
	if b.whole != nil {
		b.beside(out, parts)
		return
	}
	for len(parts) > 0 {
		n := min(len(parts), sixteen)
		if b.lanes.kernels.both(n) {
			b.group(out[:n], parts[:n])
		} else {
			n = 1
			out[0] = b.part(parts[0])
		}
		out, parts = out[n:], parts[n:]
	}
}

// group hashes parts in lanes, and one in every checkEvery again.
func (b *Blob) group(out [][Size]byte, parts [][]byte) {
	watched := -1
	if b.lanes.due(len(parts)) {
		watched = rand.IntN(len(parts))
	}
	before, after := b.paired.parts(b.lanes.kernels, out, parts, watched)
	if watched >= 0 && !before.confirms(parts[watched], out[watched], after) {
		broken.Store(true)
	}
}

func (b *Blob) part(p []byte) [Size]byte {
	if !b.lanes.due(1) {
		return b.paired.part(p)
	}
	before := b.paired
	sum := b.paired.part(p)
	if !before.confirms(p, sum, b.paired) {
		broken.Store(true)
	}
	return sum
}

func (b *Blob) beside(out [][Size]byte, parts [][]byte) {
	var own sync.WaitGroup
	// Should it fail, so will the sum of the Blob.
	own.Go(func() { b.lanes.Sum(out, parts) })
	for _, p := range parts {
		b.whole.Write(p)
	}
	own.Wait()
}

// Sum returns the SHA-256 of the Blob. After ErrLanes, which is the only error,
// the digests of parts are in doubt as well, and the load has to fail.
func (b *Blob) Sum() (sum [Size]byte, err error) {
	if err := b.lanes.Err(); err != nil {
		return sum, err
	}
	if b.whole != nil {
		return [Size]byte(b.whole.Sum(nil)), nil
	}
	return b.paired.sum(), nil
}
