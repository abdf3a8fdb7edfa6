// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// ErrLanes means that this processor or our assembly computed a wrong SHA-256.
// What was hashed before the error may be wrong as well.
var ErrLanes = errors.New("digest: parallel SHA-256 differs from the standard library")

// checkEvery is how many messages are hashed for every one that the standard
// library hashes again. K46.
const checkEvery = 1024

// sixteen is how many messages a 512-bit register has room for.
const sixteen = 16

// Path is a way to hash many messages on one core.
type Path int

const (
	Auto    Path = iota // the fastest that this processor has
	Single              // one after the other, as Sum does
	Pairs               // two at a time, with the SHA extensions
	Sixteen             // sixteen at a time, with AVX-512
)

var (
	tested sync.Once
	broken atomic.Bool
)

// Lanes hashes the messages of one load, or of anything else that has to fail
// when one of its digests is in doubt. It is safe for concurrent use.
type Lanes struct {
	kernels kernels
	hashed  atomic.Uint64 // plus a random start, so that nobody knows who is checked
}

// NewLanes returns Lanes that use the given path. Other paths than Auto are for
// tests and benchmarks; those that this processor, this build or FIPS 140 mode
// does not have are an error that is errors.ErrUnsupported.
//
// The first call in a process computes known answers on every path, which takes
// some microseconds, and returns ErrLanes if one is wrong. From then on, as
// after any ErrLanes, new Lanes hash one message after the other.
func NewLanes(p Path) (*Lanes, error) {
	k, ok := kernelsFor(p)
	if fips {
		k, ok = kernels{}, p == Auto || p == Single
	}
	if !ok {
		return nil, fmt.Errorf("digest: no path %d here: %w", p, errors.ErrUnsupported)
	}
	if k == (kernels{}) {
		return &Lanes{}, nil
	}
	var err error
	tested.Do(func() { err = selfTest() })
	if err != nil {
		return nil, err
	}
	if broken.Load() {
		k = kernels{}
	}
	l := &Lanes{kernels: k}
	l.hashed.Store(rand.Uint64N(checkEvery))
	return l, nil
}

// Width returns how many messages of equal length Sum takes at a time: 16, 2
// or 1. Fewer are hashed as fast as that number can be.
func (l *Lanes) Width() int {
	return l.kernels.width()
}

// Sum sets out[i] to the SHA-256 of in[i] for all i. The slices must have the
// same length, and nobody may write to the messages during the call. Messages
// can have any length; to be fast, those next to each other have about the same.
//
// After ErrLanes, which is the only error, out is zero and the load has to fail.
func (l *Lanes) Sum(out [][Size]byte, in [][]byte) error {
	if len(out) != len(in) {
		panic("digest: not as many digests as messages")
	}
	rest, messages := out, in
	for len(messages) > 0 {
		n := l.kernels.take(len(messages))
		if n == 1 {
			rest[0] = Sum(messages[0])
		} else {
			l.kernels.sum(rest[:n], messages[:n])
			l.sample(rest[:n], messages[:n])
		}
		rest, messages = rest[n:], messages[n:]
	}
	if err := l.Err(); err != nil {
		clear(out)
		return err
	}
	return nil
}

// Err returns ErrLanes if anything that these Lanes have hashed is in doubt: a
// mismatch was found since NewLanes, here or elsewhere in the process. A load
// asks before it declares success, because others may have hashed for longer.
func (l *Lanes) Err() error {
	if l.kernels != (kernels{}) && broken.Load() {
		return ErrLanes
	}
	return nil
}

// Check hashes b by the standard library and returns ErrLanes if sum, which Sum
// returned for b, is something else. A caller whose digest is not the one it
// wants asks before it blames the source of the bytes.
func (l *Lanes) Check(sum [Size]byte, b []byte) error {
	if sha256.Sum256(b) != sum {
		broken.Store(true)
		return ErrLanes
	}
	return l.Err()
}

// sample checks one message of every checkEvery, any one of its group.
func (l *Lanes) sample(out [][Size]byte, in [][]byte) {
	if l.due(len(in)) {
		i := rand.IntN(len(in))
		if sha256.Sum256(in[i]) != out[i] {
			broken.Store(true)
		}
	}
}

// due counts n messages and reports whether one of them is to be checked.
func (l *Lanes) due(n int) bool {
	after := l.hashed.Add(uint64(n))
	return after/checkEvery != (after-uint64(n))/checkEvery
}
