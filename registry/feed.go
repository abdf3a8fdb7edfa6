// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"io"
	"sync"
)

// feed is the body of a request that one goroutine writes and the transport
// sends: an io.Pipe whose reading end has WriteTo. What lacks that, net/http
// copies through 32 KiB, each of which becomes a chunk and is flushed; of a
// feed every Write is one chunk and goes to the connection from the memory of
// the caller.
type feed struct {
	pieces   chan []byte
	taken    chan int      // how many bytes of the piece last taken were sent
	finished chan struct{} // no more pieces
	ended    chan struct{} // nothing more is sent; err says why

	mu    sync.Mutex // Read and end may run at the same time
	err   error
	whole bool   // all of the body was handed on
	rest  []byte // of a piece that Read has begun
	read  int    // bytes of that piece
}

func newFeed() *feed {
	return &feed{
		pieces:   make(chan []byte),
		taken:    make(chan int, 1),
		finished: make(chan struct{}),
		ended:    make(chan struct{}),
	}
}

// Write returns when p has been sent, or will not be. As long as the
// connection may still read p it does not return, whatever became of the
// request: whoever ends a request early has to close its connection.
func (f *feed) Write(p []byte) (int, error) {
	select {
	case <-f.ended:
		return 0, f.err
	default:
	}
	select {
	case f.pieces <- p:
	case <-f.ended:
		return 0, f.err
	}
	n := <-f.taken
	if n < len(p) {
		<-f.ended
		return n, f.err
	}
	return n, nil
}

// finish ends the body. There is no Write after it.
func (f *feed) finish() { close(f.finished) }

// end makes Write fail with err, now and later, unless it has ended.
func (f *feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return
	}
	f.err = err
	close(f.ended)
	if len(f.rest) > 0 {
		f.release()
	}
}

// release gives back the piece that Read has begun.
func (f *feed) release() {
	f.rest = nil
	f.taken <- f.read
}

// sent reports whether all of the body was handed on.
func (f *feed) sent() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whole
}

// complete is what a reader that came to the end is told.
func (f *feed) complete() {
	f.mu.Lock()
	f.whole = true
	f.mu.Unlock()
}

// WriteTo implements io.WriterTo, which net/http looks for.
func (f *feed) WriteTo(w io.Writer) (sent int64, err error) {
	for {
		select {
		case p := <-f.pieces:
			n, err := w.Write(p)
			sent += int64(n)
			if err != nil {
				f.end(err)
			}
			f.taken <- n
			if err != nil {
				return sent, err
			}
		case <-f.finished:
			f.complete()
			return sent, nil
		case <-f.ended:
			return sent, f.err
		}
	}
}

// Read serves transports that do not look for WriteTo.
func (f *feed) Read(b []byte) (int, error) {
	var p []byte
	f.mu.Lock()
	begun := len(f.rest) > 0
	f.mu.Unlock()
	if !begun {
		select {
		case p = <-f.pieces:
		case <-f.finished:
			f.complete()
			return 0, io.EOF
		case <-f.ended:
			return 0, f.err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if !begun {
		f.rest, f.read = p, 0
	}
	if f.err != nil {
		// It ended meanwhile, and gave back what Read had begun by then.
		if !begun {
			f.release()
		}
		return 0, f.err
	}
	n := copy(b, f.rest)
	f.rest = f.rest[n:]
	if f.read += n; len(f.rest) == 0 {
		f.release()
	}
	return n, nil
}

// Close is called by the transport when it needs no more.
func (f *feed) Close() error {
	f.end(io.ErrClosedPipe)
	return nil
}
