// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// pipes are connections without buffers, also in a synctest bubble.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// within has h answer for two hosts, in this process.
func within(t *testing.T, h http.Handler) *registry.Client {
	p := make(pipes)
	s := &http.Server{Handler: h}
	go s.Serve(p)
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		p <- theirs
		return ours, nil
	}}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
	})
	c := remote()
	host := registry.Host{PlainHTTP: true, Transport: transport}
	c.Hosts = map[string]registry.Host{"example.com": host, "example.org": host}
	return c
}

// slowUploads is a registry of which one host takes little over each connection.
type slowUploads struct {
	http.Handler
	host        string
	begun, then atomic.Int32 // uploads of layers, and those that there were when the first was through
}

func (s *slowUploads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPatch && r.Host == s.host {
		r.Body = &slowBody{ReadCloser: r.Body, uploads: s, start: time.Now()}
	}
	s.Handler.ServeHTTP(w, r)
}

// slowBody is read at 4 MiB a second.
type slowBody struct {
	io.ReadCloser
	uploads *slowUploads
	start   time.Time
	n       int64
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.n <= 4*segment && b.n+int64(n) > 4*segment { // no config or index
		b.uploads.begun.Add(1)
	}
	b.n += int64(n)
	time.Sleep(time.Until(b.start.Add(time.Duration(b.n * int64(time.Second) / (4 << 20)))))
	if err == io.EOF && b.n > 4*segment {
		b.uploads.then.CompareAndSwap(0, b.uploads.begun.Load())
	}
	return n, err
}

// shards is a model of sixteen large layers, each with content of its own.
func shards() fstest.MapFS {
	sizes := make(map[string]int)
	for i := range 16 {
		sizes[fmt.Sprintf("model-%02d.safetensors", i)] = 100*segment + i
	}
	return source(sizes)
}

// TestLayersGetMoreConnectionsWhereEachIsSlow: a push begins with four large layers
// at a time, which hash in groups, and has twelve where the registry takes little
// from each, before the first layer is through. All of them share the memory that
// the four had. A copy does the same.
func TestLayersGetMoreConnectionsWhereEachIsSlow(t *testing.T) {
	src := shards()
	p := newParty(t)
	const from, to = "example.org/team/fast:v3", "example.com/team/slow:v3"
	for name, options := range p.profiles() {
		for verb, publish := range map[string]func(t *testing.T, c *modelsec.Client){
			"Push": func(t *testing.T, c *modelsec.Client) { push(t, c, to, src, options()) },
			"Copy": func(t *testing.T, c *modelsec.Client) {
				o := options()
				o.Name = "team/slow"
				push(t, c, from, src, o)
				if _, err := c.Copy(t.Context(), to, from, &modelsec.CopyOptions{Grants: modelsec.CopyAllGrants}); err != nil {
					t.Fatal(err)
				}
			},
		} {
			t.Run(verb+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					server := &slowUploads{Handler: ociserver.New(), host: "example.com"}
					r := within(t, server)
					c := &modelsec.Client{Registry: r, MemoryLimit: 6 << 20}
					publish(t, c)
					if n := server.then.Load(); n != 12 {
						t.Errorf("when the first upload was through there were %d, want 12", n)
					}
					if held, lent := c.Held(); held != 0 || lent != 0 {
						t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
					}
					dir := filepath.Join(t.TempDir(), "model")
					c = &modelsec.Client{Registry: r, Identities: p.client(nil).Identities}
					if _, err := c.Pull(t.Context(), to, dir, p.policy(), nil); err != nil {
						t.Fatal(err)
					}
					sameFiles(t, dir, src)
				})
			})
		}
	}
}

// TestPushThatGrowsEndsWithItsContext cancels while the first layers give up memory
// to others.
func TestPushThatGrowsEndsWithItsContext(t *testing.T) {
	src := shards()
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			server := &slowUploads{Handler: ociserver.New(), host: "example.com"}
			c := &modelsec.Client{Registry: within(t, server), MemoryLimit: 6 << 20}
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				for server.begun.Load() < 5 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				cancel()
			}()
			_, err := c.Push(ctx, "example.com/team/slow:v3", src, options())
			cancel()
			refused(t, err, context.Canceled)
			if held, lent := c.Held(); held != 0 || lent != 0 {
				t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
			}
		})
	}
}
