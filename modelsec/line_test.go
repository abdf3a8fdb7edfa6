// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// line is the network in front of a server. It counts what crosses it, and
// breaks.
type line struct {
	net.Listener
	every int64 // bytes to clients after which it breaks; 0: never
	whole bool  // it breaks for all connections at once, else for each by itself
	rate  int64 // bytes per second to all clients together; 0: no limit

	mu       sync.Mutex
	open     map[*wire]bool
	sent     int64       // to clients
	received int64       // from them
	cuts     int         // connections that broke
	lost     int64       // bytes to clients of the requests that were under way on those
	client   *os.Process // is killed
	moment   int64       // when so many bytes have crossed, both ways
	largest  int64       // bytes of one reply, so far
	due      time.Time
}

// wire is one connection over a line. Clients of HTTP/1.1 have one request at a
// time on it.
type wire struct {
	net.Conn
	line    *line
	sent    int64
	reply   int64 // bytes of the last one
	before  int64 // and of the one before
	writing bool
	dead    bool // the client
}

// over starts a server behind a line, and returns its host.
func over(t testing.TB, l *line, h http.Handler) (host string) {
	t.Helper()
	l.open = make(map[*wire]bool)
	s := httptest.NewUnstartedServer(h)
	l.Listener, s.Listener = s.Listener, l
	s.Start()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func (l *line) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	// What lies in the buffers of the kernel has crossed the line to us, and is
	// lost to a client that goes.
	c.(*net.TCPConn).SetWriteBuffer(128 << 10)
	w := &wire{Conn: c, line: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[w] = true
	return w, nil
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.line.count(func(l *line) {
			l.received += int64(n)
			w.writing = false
		})
	}
	return n, err
}

func (w *wire) Write(p []byte) (written int, err error) {
	const quantum = 64 << 10
	for written < len(p) && err == nil {
		var n int
		w.line.wait(min(len(p)-written, quantum))
		n, err = w.Conn.Write(p[written:min(len(p), written+quantum)])
		written += n
		w.line.count(func(l *line) {
			l.sent += int64(n)
			w.sent += int64(n)
			if !w.writing {
				w.before, w.reply, w.writing = w.reply, 0, true
			}
			w.reply += int64(n)
			l.largest = max(l.largest, w.reply)
			if w.dead {
				l.lost += int64(n) // the server is still to notice
			}
			switch {
			case err != nil:
				l.cut(w) // the client has gone
			case l.every == 0:
			case !l.whole && w.sent >= l.every:
				l.cut(w)
			case l.whole && l.sent/l.every > (l.sent-int64(n))/l.every:
				for other := range l.open {
					l.cut(other)
				}
			}
		})
	}
	return written, err
}

func (w *wire) Close() error {
	w.line.mu.Lock()
	delete(w.line.open, w)
	w.line.mu.Unlock()
	return w.Conn.Close()
}

// count changes the counts, and kills the client when its time has come.
func (l *line) count(change func(*line)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(l)
	if l.client == nil || l.sent+l.received < l.moment {
		return
	}
	l.client.Kill()
	l.client = nil
	// All of its connections break, whether or not the server is the first to
	// notice, and each costs one request: the bytes that it brought last. Who has
	// read a reply may ask for another on that connection before all of what it
	// read is hashed.
	for w := range l.open {
		l.lost += min(w.before+w.reply, l.largest)
		w.dead = true
	}
	l.cuts += len(l.open)
	clear(l.open)
}

// live gives a client so many bytes to live.
func (l *line) live(client *os.Process, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client, l.moment = client, l.sent+l.received+bytes
}

// spare kills nobody any more.
func (l *line) spare() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = nil
}

// wait keeps the rate.
func (l *line) wait(n int) {
	if l.rate == 0 {
		return
	}
	l.mu.Lock()
	now := time.Now()
	if l.due.Before(now) {
		l.due = now
	}
	l.due = l.due.Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	pause := l.due.Sub(now)
	l.mu.Unlock()
	time.Sleep(pause)
}

// cut breaks a connection in the way that loses what the client did not read.
func (l *line) cut(w *wire) {
	if !l.open[w] {
		return
	}
	delete(l.open, w)
	l.cuts++
	l.lost += w.reply
	w.Conn.(*net.TCPConn).SetLinger(0)
	w.Conn.Close()
}

// broken is how many connections broke so far. Some of the last may still be
// served.
func (l *line) broken() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

// thrifty fails where more was sent than the size and what the faults of a
// line account for: one request for each connection that broke, and 5 %.
func thrifty(t *testing.T, size int64, lines ...*line) {
	t.Helper()
	var sent, lost int64
	cuts := 0
	for _, l := range lines {
		l.mu.Lock()
		sent, lost, cuts = sent+l.sent, lost+l.lost, cuts+l.cuts
		l.mu.Unlock()
	}
	t.Logf("%d bytes were sent of an artifact of %d: %.1f %% more; %d connections broke, %d bytes were sent for the requests on them",
		sent, size, 100*float64(sent-size)/float64(size), cuts, lost)
	if sent > size+size/20+lost {
		t.Errorf("%d bytes were sent, want at most %d and 5 %% and the %d of requests that were cut", sent, size, lost)
	}
	if sent < size {
		t.Errorf("%d bytes were sent of %d: the count is wrong", sent, size)
	}
}
