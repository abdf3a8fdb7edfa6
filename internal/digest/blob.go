// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"hash"
	"sync"
)

// Blob hashes a message that grows part by part, and each part as a message of
// its own. With the SHA extensions both are a pair, so that the second digest
// of a byte costs next to nothing. It is not safe for concurrent use.
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

// Part appends p and returns its SHA-256. Nobody may write to p during the call.
// Where this processor has no pairs, two goroutines hash.
func (b *Blob) Part(p []byte) [Size]byte {
	if b.whole != nil {
		return b.beside(p)
	}
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

func (b *Blob) beside(p []byte) (sum [Size]byte) {
	var own sync.WaitGroup
	own.Go(func() { sum = Sum(p) })
	b.whole.Write(p)
	own.Wait()
	return sum
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
