// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// faulty returns a server that applies the fault that f points to, while it
// points to one, to requests of a method whose path contains part.
func faulty(method, part string, f **ociserver.Fault) *ociserver.Server {
	s := ociserver.New()
	s.Fault = func(r *http.Request) *ociserver.Fault {
		if r.Method == method && strings.Contains(r.URL.Path, part) {
			return *f
		}
		return nil
	}
	return s
}

// recorder remembers the requests that it passes on.
type recorder struct {
	http.Handler
	mu       sync.Mutex
	requests []*http.Request
}

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.requests = append(r.requests, req.Clone(req.Context()))
	r.mu.Unlock()
	r.Handler.ServeHTTP(w, req)
}

// take returns the requests so far and forgets them.
func (r *recorder) take() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests := r.requests
	r.requests = nil
	return requests
}

func pushBlob(t *testing.T, s registry.WriteStore, b []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
	w, err := s.Create(t.Context(), d.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), d.Digest); err != nil {
		t.Fatal(err)
	}
	return d
}

func manifestOf(t *testing.T, note string, subject *ocispec.Descriptor) []byte {
	t.Helper()
	b, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.example.v1+json",
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{ocispec.DescriptorEmptyJSON},
		Subject:      subject,
		Annotations:  map[string]string{"note": note},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pushManifest(t *testing.T, s registry.WriteStore, note string, subject *ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	d, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifestOf(t, note, subject))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// read fetches and reads a range, and returns what came before any error.
func read(t *testing.T, s registry.Store, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	t.Helper()
	body, err := s.Fetch(t.Context(), d, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func pattern(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef"), (n+15)/16)[:n]
}

// inProcess is a transport that calls a handler, so that whole exchanges run
// in a synctest bubble. A handler sees the end of a request by its context.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(req *http.Request) (*http.Response, error) {
	served := req.Clone(req.Context())
	if served.Body == nil {
		served.Body = http.NoBody
	}
	body, out := io.Pipe()
	w := &pipeWriter{header: make(http.Header), status: make(chan int, 1), body: out}
	go func() {
		p.Handler.ServeHTTP(w, served)
		w.WriteHeader(http.StatusOK)
		served.Body.Close()
		out.CloseWithError(req.Context().Err())
	}()
	select {
	case <-req.Context().Done():
		out.CloseWithError(req.Context().Err())
		served.Body.Close()
		return nil, req.Context().Err()
	case status := <-w.status:
		watch := make(chan struct{})
		go func() {
			select {
			case <-req.Context().Done():
				out.CloseWithError(req.Context().Err())
			case <-watch:
			}
		}()
		return &http.Response{
			StatusCode:    status,
			Header:        w.sent,
			Body:          &stoppingBody{ReadCloser: body, stop: sync.OnceFunc(func() { close(watch) })},
			ContentLength: -1,
			Request:       req,
		}, nil
	}
}

type stoppingBody struct {
	io.ReadCloser
	stop func()
}

func (b *stoppingBody) Close() error {
	b.stop()
	return b.ReadCloser.Close()
}

type pipeWriter struct {
	header http.Header
	sent   http.Header
	once   sync.Once
	status chan int
	body   *io.PipeWriter
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.sent = w.header.Clone()
		w.status <- status
	})
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

func (w *pipeWriter) Flush() {}

// quiet takes what a server has to say about broken connections.
var quiet = log.New(io.Discard, "", 0)
