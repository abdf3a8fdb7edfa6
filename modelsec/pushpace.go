// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"io"
	"sync"
	"time"
)

// A push or copy begins with pushParts layers at a time: where the lines are fast, the
// cores are busy hashing. Where they are slow there are twice as many after a look,
// up to mostParts, as long as that brings more to the registry. Lines that share
// one bottleneck get their pushParts back, since a push that is killed has sent for
// nothing what it had begun. Where all layers are small, most of the time is spent
// waiting for replies, so there are smallParts.
const (
	pushParts  = 4
	smallParts = 8

	// mostParts leaves connections of the registry to those who ask. Together they
	// need less memory than pushParts that hash in groups.
	mostParts = 12

	// sendPace is what a core can read, seal, hash and send in bytes a second, about.
	sendPace = 256 << 20

	// A look is at so many segments of each upload, or at what was sent for so long.
	// As many are not looked at before: some of them only fill the buffers of new
	// connections.
	lookSegments = 16
	lookTime     = 10 * time.Second
)

// pushPace finds out how many layers to upload at a time, and has as many uploaded.
// It is safe for concurrent use.
type pushPace struct {
	crew    *crew
	cores   int
	segment int64  // bytes
	narrow  func() // called before there are more than at first

	mu    sync.Mutex
	line  pace
	since time.Time
	parts int     // that there may be
	fewer int     // that there were before; 0: these are not on trial
	rate  float64 // bytes a second that they sent
	looks bool    // at what is sent now
	ended bool    // nothing is to be found out any more
}

// sent notes what an upload has sent in a time that ends now. It returns how many
// uploads there may be from then on, and whether that has changed.
func (p *pushPace) sent(line pace, now time.Time) (parts int, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = now.Add(-line.waited)
	}
	p.line.bytes += line.bytes
	p.line.waited += line.waited
	parts = p.parts
	took := now.Sub(p.since)
	if p.ended || p.line.bytes < lookSegments*p.segment*int64(parts) && took < lookTime {
		return parts, false
	}
	seen, rate := p.line, float64(p.line.bytes)/took.Seconds()
	p.line, p.since = pace{}, now
	if p.looks = !p.looks; p.looks {
		return parts, false
	}
	slow := seen.slow(parts, p.cores, sendPace)
	switch {
	case p.fewer > 0 && (rate < p.rate || slow && rate < p.worth()):
		p.parts, p.ended = p.fewer, true
	case !slow:
		p.fewer = 0
	case parts == mostParts:
		p.ended = true
	default:
		p.fewer, p.rate = parts, rate
		p.parts = min(2*parts, mostParts)
	}
	return p.parts, p.parts != parts
}

// worth is what more uploads have to bring to be kept: a third of what they would
// on lines of their own.
func (p *pushPace) worth() float64 {
	return p.rate * (1 + float64(p.parts-p.fewer)/float64(p.fewer)/3)
}

// note is sent for an upload under way, as long as others wait.
func (p *pushPace) note(line pace, now time.Time) {
	if p.crew.left() == 0 {
		return
	}
	parts, changed := p.sent(line, now)
	if !changed {
		return
	}
	if parts > pushParts {
		p.narrow()
	}
	p.crew.resize(parts)
}

// pacer is the line of one upload, and of a copy the one that it comes over.
type pacer struct {
	pace   *pushPace
	out    io.Writer
	in     io.Reader     // nil: none
	waited time.Duration // for in, since the last Write
}

func (p *pacer) Read(b []byte) (int, error) {
	start := time.Now()
	n, err := p.in.Read(b)
	p.waited += time.Since(start)
	return n, err
}

func (p *pacer) Write(b []byte) (int, error) {
	start := time.Now()
	n, err := p.out.Write(b)
	now := time.Now()
	p.pace.note(pace{int64(n), now.Sub(start) + p.waited}, now)
	p.waited = 0
	return n, err
}
