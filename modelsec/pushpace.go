// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"io"
	"sync"
	"time"
)

// A push or copy begins with pushParts layers at a time: where the lines are fast,
// the cores are busy hashing. Where they are slow there are more after each look, up
// to mostParts, as long as that brings more to the registry. Lines that share one
// bottleneck get their pushParts back, since a push that is killed has sent for
// nothing what it had begun. Where all layers are small, most of the time is spent
// waiting for replies, so there are smallParts.
const (
	pushParts  = 4
	smallParts = 8

	// mostParts leaves connections of the registry to those who ask.
	mostParts = 12

	// sendPace is what a core can read, seal, hash and send in bytes a second, about.
	sendPace = 256 << 20

	// A look is at so many segments of each upload, or at what was sent for so long.
	// As many are not looked at before: some of them only fill the buffers of new
	// connections.
	lookSegments = 16
	lookTime     = 20 * time.Second
)

// pushPace finds out how many layers to upload at a time, and has as many uploaded.
// It is safe for concurrent use.
type pushPace struct {
	crew    *crew
	cores   int
	segment int64 // bytes
	first   int   // parts at first
	most    int   // parts that there is room for

	mu      sync.Mutex
	line    pace
	sending int           // lines that bytes wait for now
	since   time.Time     // when there began to be any
	busy    time.Duration // there were some, before that
	parts   int           // that there may be
	before  int           // that there were before; 0: these are not on trial
	rate    float64       // bytes a second that they sent
	looking bool          // else the buffers of new connections may be filling
	ended   bool          // nothing is to be found out any more
	narrow  chan struct{} // closed while there may be more than at first
}

func newPushPace(c *crew, cores int, segment int64, first, most int) *pushPace {
	return &pushPace{
		crew: c, cores: cores, segment: segment, first: first, most: max(first, min(most, mostParts)),
		parts: first, narrow: make(chan struct{}),
	}
}

// narrowed returns what is closed when a part that begins now has to do with little
// memory. It has nothing to lose where the lines are slow.
func (p *pushPace) narrowed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.narrow
}

// begin says that a line is about to move bytes.
func (p *pushPace) begin() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.sending++; p.sending == 1 {
		p.since = now
	}
	return now
}

// end says how many it has moved since, and has more or fewer layers uploaded from
// then on, as long as others wait.
func (p *pushPace) end(start time.Time, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.busy += now.Sub(p.since)
	p.since = now
	p.sending--
	parts := p.parts
	if p.crew.left() == 0 || !p.judge(pace{int64(n), now.Sub(start)}) {
		return
	}
	switch p.first {
	case parts:
		close(p.narrow)
	case p.parts:
		p.narrow = make(chan struct{})
	}
	p.crew.resize(p.parts)
}

// judge reports whether the number of parts has changed. It is called under the
// lock.
func (p *pushPace) judge(line pace) bool {
	p.line.bytes += line.bytes
	p.line.waited += line.waited
	if p.ended || p.line.bytes < lookSegments*p.segment*int64(p.parts) && p.busy < lookTime {
		return false
	}
	seen, rate := p.line, float64(p.line.bytes)/p.busy.Seconds()
	p.line, p.busy = pace{}, 0
	if p.looking = !p.looking; p.looking {
		return false
	}
	parts := p.parts
	slow := seen.slow(parts, p.cores, sendPace)
	switch {
	case p.before > 0 && (rate < p.rate || slow && rate < p.worth()):
		p.parts, p.ended = p.before, true
	case !slow:
		p.before = 0
	case parts >= p.most:
		p.ended = true
	default:
		p.before, p.rate = parts, rate
		p.parts = min(2*parts, p.most)
	}
	return p.parts != parts
}

// worth is what more uploads have to bring to be kept: a third of what they would
// on lines of their own.
func (p *pushPace) worth() float64 {
	return p.rate * (1 + float64(p.parts-p.before)/float64(p.before)/3)
}

// pacer is the line of one upload, and of a copy the one that it comes over.
type pacer struct {
	pace *pushPace
	out  io.Writer
	in   io.Reader // nil: none
}

func (p *pacer) Read(b []byte) (int, error) {
	start := p.pace.begin()
	n, err := p.in.Read(b)
	p.pace.end(start, 0) // it counts when it has been written
	return n, err
}

func (p *pacer) Write(b []byte) (int, error) {
	start := p.pace.begin()
	n, err := p.out.Write(b)
	p.pace.end(start, n)
	return n, err
}
