// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !nolanes && !purego

package digest

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
)

func (k kernels) pairing() bool { return k.pairs }

// both reports whether n parts of a message are fastest hashed in lanes, beside
// the message. Lanes take as long for a few, so of a few a pair is faster.
func (k kernels) both(n int) bool { return k.pairs && k.wideFrom > 0 && n >= 8 && n <= sixteen }

// paired is a message whose end is not known, hashed beside its parts.
type paired struct {
	state  [8]uint32
	held   [blockSize]byte // the begun block
	n      int             // bytes in held
	length uint64
}

func (m *paired) reset() { *m = paired{state: initial} }

// write appends p.
func (m *paired) write(p []byte) {
	m.rest(m.fill(p))
}

// rest appends p where no block has begun.
func (m *paired) rest(p []byte) {
	for len(p) >= blockSize {
		n := min(maxBlocks, len(p)/blockSize)
		stepAlone(&m.state, &p[0], n)
		p = p[n*blockSize:]
	}
	m.keep(p)
}

// part appends p and returns its digest. The two begin at different places of a
// block, unless all before was whole blocks, so they share no message schedule.
func (m *paired) part(p []byte) [Size]byte {
	var own lane
	own.start(0, p)
	p = m.fill(p)
	for len(p) >= blockSize {
		n := min(maxBlocks, len(p)/blockSize)
		state, data := [2][8]uint32{m.state, own.state}, [2]*byte{&p[0], &own.body[0]}
		blocksSHANI(&state, &data, n)
		m.state, own.state = state[0], state[1]
		own.advance(n)
		p = p[n*blockSize:]
	}
	m.keep(p)
	return own.finish()
}

// parts appends up to sixteen parts and sets out to their digests. It returns
// what the message was before and after the part with the number watched.
func (m *paired) parts(k kernels, out [][Size]byte, in [][]byte, watched int) (before, after paired) {
	var all [sixteen]lane
	lanes := all[:len(in)]
	ready := len(in[0]) / blockSize // blocks that every lane has
	for i, p := range in {
		lanes[i].start(i, p)
		ready = min(ready, len(p)/blockSize)
	}
	for i, p := range in {
		if i == watched {
			before = *m
		}
		p = m.fill(p)
		for len(p) >= sixteen*blockSize && ready > 0 {
			n := min(maxBlocks/sixteen, ready, len(p)/(sixteen*blockSize))
			m.step(lanes, n, &p[0])
			ready -= n
			p = p[n*sixteen*blockSize:]
		}
		m.rest(p)
		if i == watched {
			after = *m
		}
	}
	k.finish(out, lanes)
	return before, after
}

// step hashes n blocks of every lane, and from next sixteen times as many of the
// message.
func (m *paired) step(lanes []lane, n int, next *byte) {
	w := load(lanes)
	blocksBoth(&w.state, &w.data, n, &m.state, next)
	w.store(lanes)
	for i := range lanes {
		lanes[i].advance(n)
	}
}

// fill completes the begun block and returns what is left of p.
func (m *paired) fill(p []byte) []byte {
	m.length += uint64(len(p))
	if m.n == 0 {
		return p
	}
	n := copy(m.held[m.n:], p)
	if m.n += n; m.n == blockSize {
		stepAlone(&m.state, &m.held[0], 1)
		m.n = 0
	}
	return p[n:]
}

// keep begins a block with p, if there is any.
func (m *paired) keep(p []byte) { m.n += copy(m.held[m.n:], p) }

// sum returns the digest of what was appended so far.
func (m *paired) sum() [Size]byte {
	end := lane{state: m.state}
	end.pad(m.held[:m.n], m.length)
	return end.finish()
}

// confirms reports whether the standard library, put into the state of m, gives
// sum for p, and for what m is with p the same as after.
func (m *paired) confirms(p []byte, sum [Size]byte, after paired) bool {
	b := append(make([]byte, 0, 108), "sha\x03"...) // as it marshals itself
	for _, word := range m.state {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	b = append(b, m.held[:]...)
	b = binary.BigEndian.AppendUint64(b, m.length)
	h := sha256.New()
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b); err != nil {
		return false
	}
	h.Write(p)
	return sha256.Sum256(p) == sum && [Size]byte(h.Sum(nil)) == after.sum()
}
