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
	"testing/synctest"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// pipes are connections without buffers, in the time of a synctest bubble.
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

// within has h answer for example.com, in this process.
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
	c.Hosts = map[string]registry.Host{"example.com": {PlainHTTP: true, Transport: transport}}
	return c
}

// slowBody is read at so many bytes a second.
type slowBody struct {
	io.ReadCloser
	rate  int64
	start time.Time
	n     int64
}

func (b *slowBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n += int64(n)
	time.Sleep(time.Until(b.start.Add(time.Duration(b.n * int64(time.Second) / b.rate))))
	return n, err
}

// TestLayersOfAPushGetMoreConnectionsWhereEachIsSlow: a push begins with four large
// layers at a time, which hash in groups, and has twelve where the registry takes
// little from each, before the first layer is through. All of them share the memory
// that the four had.
func TestLayersOfAPushGetMoreConnectionsWhereEachIsSlow(t *testing.T) {
	const layers, size, rate = 16, 100 * segment, 4 << 20
	sizes := make(map[string]int)
	for i := range layers {
		sizes[fmt.Sprintf("model-%02d.safetensors", i)] = size
	}
	src := source(sizes)
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := ociserver.New()
				var begun, then atomic.Int32
				r := within(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Method == http.MethodPatch {
						begun.Add(1)
						defer func() { then.CompareAndSwap(0, begun.Load()) }()
						r.Body = &slowBody{ReadCloser: r.Body, rate: rate, start: time.Now()}
					}
					server.ServeHTTP(w, r)
				}))
				c := &modelsec.Client{Registry: r, MemoryLimit: 6 << 20}
				push(t, c, "example.com/team/slow:v3", src, options())
				if n := then.Load(); n != 12 {
					t.Errorf("when the first upload was through there were %d, want 12", n)
				}
				if held, lent := c.Held(); held != 0 || lent != 0 {
					t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
				}
				dir := filepath.Join(t.TempDir(), "model")
				c = &modelsec.Client{Registry: r, Identities: p.client(nil).Identities}
				if _, err := c.Pull(t.Context(), "example.com/team/slow:v3", dir, p.policy(), nil); err != nil {
					t.Fatal(err)
				}
				sameFiles(t, dir, src)
			})
		})
	}
}
