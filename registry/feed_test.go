// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// feeders are the two ways in which a transport takes a body.
var feeders = map[string]func(io.Writer, registry.Feed) (int64, error){
	"WriteTo": func(w io.Writer, f registry.Feed) (int64, error) { return f.WriteTo(w) },
	"Read": func(w io.Writer, f registry.Feed) (int64, error) {
		return io.CopyBuffer(w, struct{ io.Reader }{f}, make([]byte, 7))
	},
}

func TestFeedHandsOverEveryByteInOrder(t *testing.T) {
	want := pattern(1000)
	for name, take := range feeders {
		f := registry.NewFeed()
		go func() {
			for piece := range slices.Chunk(want, 33) {
				if n, err := f.Write(piece); n != len(piece) || err != nil {
					t.Errorf("%s: Write of %d bytes = %d, %v", name, len(piece), n, err)
				}
			}
			if f.Complete() {
				t.Errorf("%s: complete before its end", name)
			}
			f.Finish()
		}()
		var got bytes.Buffer
		if n, err := take(&got, f); n != int64(len(want)) || err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%s: got %d bytes, %v", name, n, err)
		}
		if !f.Complete() {
			t.Errorf("%s: not complete at its end", name)
		}
	}
	f := registry.NewFeed()
	go func() {
		f.Write(want)
		f.Finish()
	}()
	if err := iotest.TestReader(struct{ io.Reader }{f}, want); err != nil {
		t.Error(err)
	}
}

func TestFeedThatEndedTakesNothing(t *testing.T) {
	cause := errors.New("cause")
	f := registry.NewFeed()
	f.End(cause)
	f.End(errors.New("later"))
	if n, err := f.Write([]byte("x")); n != 0 || err != cause {
		t.Errorf("Write = %d, %v; want the first cause", n, err)
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || err != cause {
		t.Errorf("Read = %d, %v; want the first cause", n, err)
	}
	if n, err := f.WriteTo(io.Discard); n != 0 || err != cause {
		t.Errorf("WriteTo = %d, %v; want the first cause", n, err)
	}
	if f.Complete() {
		t.Error("complete, though it was ended")
	}
}

// slowConnection holds every Write until go on is closed, and reads the bytes
// then: the race detector sees whoever changes them before.
type slowConnection struct {
	goOn chan struct{}
	sum  byte
}

func (s *slowConnection) Write(p []byte) (int, error) {
	<-s.goOn
	for _, b := range p {
		s.sum += b
	}
	return len(p), nil
}

func TestFeedWriteReturnsOnlyWhenTheConnectionIsDoneWithItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := registry.NewFeed()
		p := pattern(100)
		var returned atomic.Bool
		var all sync.WaitGroup
		all.Go(func() {
			f.Write(p)
			returned.Store(true)
			clear(p)
		})
		s := &slowConnection{goOn: make(chan struct{})}
		all.Go(func() { f.WriteTo(s) })
		synctest.Wait()
		f.Close()
		f.End(io.ErrUnexpectedEOF)
		synctest.Wait()
		if returned.Load() {
			t.Error("Write returned while the connection had its bytes")
		}
		close(s.goOn)
		all.Wait()
	})
}

func TestFeedClosedMidwaySaysHowMuchWasTaken(t *testing.T) {
	f := registry.NewFeed()
	type result struct {
		n   int
		err error
	}
	written := make(chan result)
	go func() {
		n, err := f.Write(pattern(100))
		written <- result{n, err}
	}()
	if n, err := io.ReadFull(f, make([]byte, 10)); n != 10 || err != nil {
		t.Fatalf("Read = %d, %v", n, err)
	}
	f.Close()
	if r := <-written; r.n != 10 || r.err != io.ErrClosedPipe {
		t.Errorf("Write = %d, %v; want 10 and ErrClosedPipe", r.n, r.err)
	}
	if n, err := f.Read(make([]byte, 10)); n != 0 || err != io.ErrClosedPipe {
		t.Errorf("Read after Close = %d, %v", n, err)
	}
	broken := errors.New("broken")
	f = registry.NewFeed()
	go func() {
		n, err := f.Write(pattern(100))
		written <- result{n, err}
	}()
	f.WriteTo(brokenConnection{broken})
	if r := <-written; r.n != 30 || r.err != broken {
		t.Errorf("Write over a connection that breaks = %d, %v", r.n, r.err)
	}
}

type brokenConnection struct{ err error }

func (b brokenConnection) Write([]byte) (int, error) { return 30, b.err }

func TestFeedClosedAtAnyMomentLeavesNobodyWaiting(t *testing.T) {
	for name, take := range feeders {
		for range 500 {
			f := registry.NewFeed()
			var all sync.WaitGroup
			all.Go(func() {
				p := pattern(64)
				for {
					n, err := f.Write(p)
					clear(p[:n])
					if err != nil {
						return
					}
				}
			})
			all.Go(func() {
				if _, err := take(io.Discard, f); err == nil {
					t.Errorf("%s: a body that was cut looks whole", name)
				}
			})
			f.Close()
			all.Wait()
		}
	}
}

// TestUploadThroughATransportThatOnlyReads is for those of the caller.
func TestUploadThroughATransportThatOnlyReads(t *testing.T) {
	server := ociserver.New()
	host := serve(t, server)
	c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{host: {Transport: readingTransport{}}}}
	s := open(t, c, host+"/team/model")
	d := pushBlob(t, s, pattern(3<<20))
	if b, err := read(t, s, d, 0, d.Size); err != nil || !bytes.Equal(b, pattern(3<<20)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

type readingTransport struct{}

func (readingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	if r.Body != nil {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return http.DefaultTransport.RoundTrip(r)
}

// TestRefusalByARegistryThatReadsNoMoreIsReportedAtOnce: the connection would
// wait for the registry until it counts as stalled.
func TestRefusalByARegistryThatReadsNoMoreIsReportedAtOnce(t *testing.T) {
	const body = `{"errors":[{"code":"SIZE_INVALID","message":"quota"}]}`
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		defer close(over)
		server := ociserver.New()
		s := overPipe(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPatch {
				server.ServeHTTP(w, r)
				return
			}
			conn, both, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(both, "HTTP/1.1 100 Continue\r\n\r\n")
			both.Flush()
			io.CopyN(io.Discard, both, 10_000)
			time.Sleep(time.Second) // the connection waits for us
			fmt.Fprintf(both, "HTTP/1.1 413 Too Large\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			both.Flush()
			<-over
		}))
		start := time.Now()
		err := upload(t, s, pattern(1<<20))
		if took := time.Since(start); took >= registry.StallTimeout {
			t.Errorf("reported after %v", took)
		}
		var e *registry.Error
		if !errors.Is(err, registry.ErrLimit) || !errors.As(err, &e) || e.Status != http.StatusRequestEntityTooLarge || !strings.Contains(err.Error(), "quota") {
			t.Errorf("got error %v, want the registry's own", err)
		}
	})
}

// TestUploadSendsLargeChunksOnAFastLineOnly: one that takes half the time of a
// stall for the smallest is slow, and moves.
func TestUploadSendsLargeChunksOnAFastLineOnly(t *testing.T) {
	const size = 16 << 20
	for _, tt := range []struct {
		name  string
		pause func(sent int) time.Duration // for each of the smallest chunks
		want  int                          // the largest chunk of the last half
	}{
		{"fast", func(int) time.Duration { return 0 }, registry.MaxChunk},
		{"slow", func(int) time.Duration { return registry.StallTimeout / 2 }, registry.MinChunk},
		{"slower", func(sent int) time.Duration {
			if sent < size/4 {
				return 0
			}
			return 3 * time.Second
		}, registry.MinChunk},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line := &pacedLine{pause: tt.pause, from: size / 2}
				s := overLine(t, ociserver.New(), func(c net.Conn) net.Conn {
					return pacedConn{c, line}
				})
				w, err := s.Create(t.Context(), size)
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				if _, err := w.Write(pattern(size)); err != nil {
					t.Fatal(err)
				}
				if err := w.Commit(t.Context(), digest.FromBytes(pattern(size))); err != nil {
					t.Fatal(err)
				}
				// The start of a chunk goes with its length.
				if got := line.largest; got > tt.want || got < tt.want-4<<10 {
					t.Errorf("chunks of up to %d bytes, want %d", got, tt.want)
				}
			})
		})
	}
}

// pacedLine is what connections together send.
type pacedLine struct {
	pause func(sent int) time.Duration
	from  int // from here on the largest write counts

	mu            sync.Mutex
	sent, largest int
}

type pacedConn struct {
	net.Conn
	line *pacedLine
}

func (c pacedConn) Write(p []byte) (int, error) {
	c.line.mu.Lock()
	defer c.line.mu.Unlock()
	pause := c.line.pause(c.line.sent) * time.Duration(len(p)) / registry.MinChunk
	if c.line.sent += len(p); c.line.sent > c.line.from {
		c.line.largest = max(c.line.largest, len(p))
	}
	time.Sleep(pause)
	return c.Conn.Write(p)
}

// overPipe returns a repository that h serves over connections in memory, which
// keep nothing: a write ends when it was read.
func overPipe(t *testing.T, h http.Handler) registry.WriteStore {
	return overLine(t, h, func(c net.Conn) net.Conn { return c })
}

// overLine is overPipe with connections as line makes them for the client.
func overLine(t *testing.T, h http.Handler, line func(net.Conn) net.Conn) registry.WriteStore {
	l := make(pipes)
	server := &http.Server{Handler: h}
	go server.Serve(l)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		l <- theirs
		return line(ours), nil
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		server.Close()
	})
	c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{"registry.test": {PlainHTTP: true, Transport: transport}}}
	return open(t, c, "registry.test/team/model")
}

type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p pipes) Close() error {
	close(p)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }
