// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !nolanes && !purego

package digest

import (
	"encoding/binary"

	"github.com/klauspost/cpuid/v2"
)

const (
	blockSize = 64
	// maxBlocks bounds one call of a block function, which the scheduler of Go
	// cannot interrupt, to some 300 microseconds.
	maxBlocks = 1024
)

// initial is the initial hash value of FIPS 180-4 §5.3.3.
var initial = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

// kernels says which block functions are in use; the zero value none.
type kernels struct {
	wideFrom int  // fewest messages that sixteen lanes pay for; 0: never
	pairs    bool // the SHA extensions
}

func kernelsFor(p Path) (k kernels, ok bool) {
	wide := cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512BW)
	pairs := cpuid.CPU.Supports(cpuid.SHA, cpuid.SSSE3)
	switch p {
	case Auto:
		return fastest(wide, pairs), true
	case Single:
		return kernels{}, true
	case Pairs:
		return kernels{pairs: true}, pairs
	case Sixteen:
		return kernels{wideFrom: 2}, wide
	default:
		return kernels{}, false
	}
}

// fastest compares what one core hashes alone, in a pair and with sixteen lanes,
// which take as long for a few messages as for sixteen. The numbers are GB/s.
func fastest(wide, pairs bool) kernels {
	k := kernels{pairs: pairs}
	switch {
	case !wide:
	case !pairs: // 0.5, none, 3 or more
		k.wideFrom = 4
	case cpuid.CPU.IsVendor(cpuid.AMD) && cpuid.CPU.Family == 0x19:
		// 1.8, 3.6, 3.7 on Zen 4. It computes 512 bits in two halves, and a pair
		// keeps its SHA unit busy. Sixteen messages at hand cost more memory than
		// the difference is worth.
	default: // 1.7, 2.4, 3.9 on a Xeon
		k.wideFrom = 11
	}
	return k
}

// width returns how many messages it takes to be fastest.
func (k kernels) width() int {
	switch {
	case k.wideFrom > 0:
		return sixteen
	case k.pairs:
		return 2
	default:
		return 1
	}
}

// take returns how many of n messages to hash next.
func (k kernels) take(n int) int {
	switch {
	case k.wideFrom > 0 && n >= k.wideFrom:
		return min(n, sixteen)
	case k.pairs && n >= 2:
		return 2
	default:
		return 1
	}
}

// lane is one message on its way.
type lane struct {
	state   [8]uint32
	message int
	body    []byte              // the whole blocks that are left of the message
	tail    [2 * blockSize]byte // what follows them, padded
	at, end int                 // the blocks that are left of the tail
}

// start begins a message. It pads as FIPS 180-4 §5.1.1 says.
func (l *lane) start(message int, b []byte) {
	l.state, l.message = initial, message
	whole := len(b) &^ (blockSize - 1)
	l.body = b[:whole]
	l.pad(b[whole:], uint64(len(b)))
}

// pad makes the tail of a message of length bytes that ends with rest.
func (l *lane) pad(rest []byte, length uint64) {
	n := copy(l.tail[:], rest)
	l.tail[n] = 0x80
	l.end = blockSize
	if n+1+8 > blockSize {
		l.end = 2 * blockSize
	}
	binary.BigEndian.PutUint64(l.tail[l.end-8:], length*8)
}

// next returns the next blocks that are in one piece, and their number.
func (l *lane) next() (first *byte, blocks int) {
	if len(l.body) > 0 {
		return &l.body[0], len(l.body) / blockSize
	}
	return &l.tail[l.at], (l.end - l.at) / blockSize
}

func (l *lane) advance(blocks int) {
	if len(l.body) > 0 {
		l.body = l.body[blocks*blockSize:]
	} else {
		l.at += blocks * blockSize
	}
}

func (l *lane) done() bool { return l.at == l.end }

// digest is the state of a lane that is done.
func (l *lane) digest() (sum [Size]byte) {
	for j, word := range l.state {
		binary.BigEndian.PutUint32(sum[4*j:], word)
	}
	return sum
}

// finish hashes the little that is left of a lane.
func (l *lane) finish() [Size]byte {
	for !l.done() {
		first, n := l.next()
		stepAlone(&l.state, first, n)
		l.advance(n)
	}
	return l.digest()
}

// sum hashes up to sixteen messages.
func (k kernels) sum(out [][Size]byte, in [][]byte) {
	var all [sixteen]lane
	for i, b := range in {
		all[i].start(i, b)
	}
	k.finish(out, all[:len(in)])
}

// finish hashes what is left of up to sixteen messages. All lanes advance by the
// blocks that the shortest has left; a lane that is done makes room for the last.
func (k kernels) finish(out [][Size]byte, lanes []lane) {
	for len(lanes) > 0 {
		n := maxBlocks
		for i := range lanes {
			_, blocks := lanes[i].next()
			n = min(n, blocks)
		}
		if k.wideFrom > 0 && (len(lanes) >= k.wideFrom || !k.pairs) {
			stepWide(lanes, n)
		} else {
			stepPairs(lanes, n)
		}
		for i := len(lanes) - 1; i >= 0; i-- {
			l := &lanes[i]
			l.advance(n)
			if !l.done() {
				continue
			}
			out[l.message] = l.digest()
			*l = lanes[len(lanes)-1]
			lanes = lanes[:len(lanes)-1]
		}
	}
}

// wide is what blocksAVX512 and blocksBoth work on.
type wide struct {
	state [8][sixteen]uint32
	data  [sixteen]*byte
}

// load returns the states and the next blocks of lanes. Those that nobody needs
// repeat the first.
func load(lanes []lane) (w wide) {
	for i := range w.data {
		l := &lanes[0]
		if i < len(lanes) {
			l = &lanes[i]
		}
		w.data[i], _ = l.next()
		for j, word := range l.state {
			w.state[j][i] = word
		}
	}
	return w
}

// store gives lanes their states.
func (w *wide) store(lanes []lane) {
	for i := range lanes {
		for j := range w.state {
			lanes[i].state[j] = w.state[j][i]
		}
	}
}

// stepWide hashes n blocks of every lane.
func stepWide(lanes []lane, n int) {
	w := load(lanes)
	blocksAVX512(&w.state, &w.data, n)
	w.store(lanes)
}

// stepPairs hashes n blocks of every lane. The last of an odd number is paired
// with itself.
func stepPairs(lanes []lane, n int) {
	for i := 0; i < len(lanes); i += 2 {
		x, y := &lanes[i], &lanes[min(i+1, len(lanes)-1)]
		state := [2][8]uint32{x.state, y.state}
		var data [2]*byte
		data[0], _ = x.next()
		data[1], _ = y.next()
		blocksSHANI(&state, &data, n)
		x.state, y.state = state[0], state[1]
	}
}

// stepAlone hashes n blocks from first, paired with themselves.
func stepAlone(state *[8]uint32, first *byte, n int) {
	pair, data := [2][8]uint32{*state, *state}, [2]*byte{first, first}
	blocksSHANI(&pair, &data, n)
	*state = pair[0]
}
