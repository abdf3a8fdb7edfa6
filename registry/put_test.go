// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

func put(ctx context.Context, s registry.WriteStore, b []byte) error {
	d := ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}
	return s.(registry.Putter).Put(ctx, d, bytes.NewReader(b))
}

func TestPutIsOneRequestOfKnownLength(t *testing.T) {
	r := &recorder{Handler: ociserver.New()}
	s := remote(t, r)
	for _, b := range [][]byte{nil, pattern(1), pattern(3 << 20)} {
		r.take()
		if err := put(t.Context(), s, b); err != nil {
			t.Fatal(err)
		}
		requests := r.take()
		var shapes []string
		for _, req := range requests {
			shapes = append(shapes, shape(req))
		}
		want := shape(&http.Request{Method: http.MethodPut, ContentLength: int64(len(b)), URL: requests[1].URL})
		if len(shapes) != 2 || shapes[0] != "POST length=0" || shapes[1] != want {
			t.Errorf("%d bytes: got %q, want POST and %q", len(b), shapes, want)
		}
		if asks := requests[1].Header.Get("Expect") != ""; asks != (len(b) > 1<<20) {
			t.Errorf("%d bytes: the registry was asked first: %v", len(b), asks)
		}
		got, err := read(t, s, ocispec.Descriptor{Digest: digest.FromBytes(b), Size: int64(len(b))}, 0, int64(len(b)))
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%d bytes: read %d, %v", len(b), len(got), err)
		}
	}
}

func TestPutIsTriedAgain(t *testing.T) {
	for name, fail := range map[string]func(w http.ResponseWriter, r *http.Request){
		"cut": func(_ http.ResponseWriter, r *http.Request) {
			io.CopyN(io.Discard, r.Body, 100_000)
			panic(http.ErrAbortHandler)
		},
		"busy": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) },
	} {
		server := ociserver.New()
		var puts atomic.Int32
		s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut && puts.Add(1) < 3 {
				fail(w, r)
				return
			}
			server.ServeHTTP(w, r)
		}))
		if err := put(t.Context(), s, pattern(4<<20)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := puts.Load(); n != 3 {
			t.Errorf("%s: %d PUT requests, want 3", name, n)
		}
		if n := server.Requests("DELETE upload"); n != 2 {
			t.Errorf("%s: %d sessions were ended, want 2", name, n)
		}
	}
}

func TestPutThatWorkedIsNotRepeated(t *testing.T) {
	server := ociserver.New()
	var puts atomic.Int32
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && puts.Add(1) == 1 {
			server.ServeHTTP(&swallowed{header: make(http.Header)}, r)
			panic(http.ErrAbortHandler)
		}
		server.ServeHTTP(w, r)
	}))
	if err := put(t.Context(), s, pattern(100_000)); err != nil {
		t.Fatal(err)
	}
	if n := puts.Load(); n != 1 {
		t.Errorf("%d PUT requests, want 1", n)
	}
}

// swallowed is a reply that gets lost.
type swallowed struct{ header http.Header }

func (s *swallowed) Header() http.Header         { return s.header }
func (s *swallowed) Write(p []byte) (int, error) { return len(p), nil }
func (s *swallowed) WriteHeader(int)             {}

func TestPutRenewsItsToken(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		k := &tokens{maxUse: 1}
		server := ociserver.New()
		mux := http.NewServeMux()
		mux.Handle("/token", k)
		mux.Handle("/", k.guard(server))
		host := serve(t, mux)
		k.realm = "http://" + host + "/token"
		c := &registry.Client{Credentials: withPassword}
		if trusted {
			c.Hosts = map[string]registry.Host{host: {TrustedRealms: []string{host}}}
		}
		if err := put(t.Context(), open(t, c, host+"/team/model"), pattern(3<<20)); err != nil {
			t.Errorf("trusted=%v: %v", trusted, err)
		}
		if k.issued < 2 {
			t.Errorf("trusted=%v: %d tokens", trusted, k.issued)
		}
	}
}

func TestPutOfOtherBytesIsRefused(t *testing.T) {
	s := remote(t, ociserver.New())
	d := ocispec.Descriptor{Digest: digest.FromBytes(pattern(10)), Size: 10}
	if err := s.(registry.Putter).Put(t.Context(), d, bytes.NewReader(make([]byte, 10))); err == nil {
		t.Error("other bytes were stored")
	}
	// Content that is too short is a fault of the caller, found at once.
	short, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.(registry.Putter).Put(short, d, bytes.NewReader(make([]byte, 9))); err == nil || short.Err() != nil {
		t.Errorf("short content: got error %v", err)
	}
	d.Size = -1
	if err := s.(registry.Putter).Put(t.Context(), d, bytes.NewReader(nil)); !errors.Is(err, registry.ErrLimit) {
		t.Errorf("negative size: got error %v, want ErrLimit", err)
	}
}

func TestRefusedFormsAreNamedAndRemembered(t *testing.T) {
	for _, status := range []int{http.StatusMethodNotAllowed, http.StatusLengthRequired, http.StatusRequestEntityTooLarge, http.StatusRequestedRangeNotSatisfiable} {
		var fault *ociserver.Fault
		s := remote(t, faulty(http.MethodPatch, "/uploads/", &fault))
		fault = &ociserver.Fault{Status: status}
		p := s.(registry.Putter)
		if p.PutFirst(1000) {
			t.Error("an unknown registry is not streamed to")
		}
		var e *registry.Error
		if err := upload(t, s, pattern(8<<20)); !errors.Is(err, registry.ErrUploadForm) || !errors.As(err, &e) || e.Temporary() {
			t.Errorf("PATCH answered with %d: got error %v, want a lasting ErrUploadForm", status, err)
		}
		if !p.PutFirst(1000) {
			t.Errorf("PATCH answered with %d: not remembered", status)
		}
		if err := put(t.Context(), s, pattern(8<<20)); err != nil {
			t.Errorf("Put after PATCH was answered with %d: %v", status, err)
		}
	}
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodPut, "/uploads/", &fault))
	fault = &ociserver.Fault{Status: http.StatusRequestEntityTooLarge}
	if err := put(t.Context(), s, pattern(8<<20)); !errors.Is(err, registry.ErrUploadForm) || !errors.Is(err, registry.ErrLimit) {
		t.Errorf("PUT answered with 413: got error %v, want ErrUploadForm", err)
	}
	fault = nil
	if err := upload(t, s, pattern(8<<20)); err != nil {
		t.Errorf("streamed after that: %v", err)
	}
}

// ECR answers 201 to a PATCH, and has been seen to drop what it carried.
func TestCreatedForPatchIsDoubted(t *testing.T) {
	server := ociserver.New()
	drop := false
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPatch {
			server.ServeHTTP(w, r)
			return
		}
		if drop {
			io.Copy(io.Discard, r.Body)
			r.Body = http.NoBody
		}
		server.ServeHTTP(&statusWriter{w, http.StatusCreated}, r)
	}))
	if err := upload(t, s, pattern(1000)); err != nil {
		t.Errorf("kept: %v", err)
	}
	drop = true
	if err := upload(t, s, pattern(1001)); !errors.Is(err, registry.ErrUploadForm) {
		t.Errorf("dropped: got error %v, want ErrUploadForm", err)
	}
}

// statusWriter answers with another status, and does not say what arrived.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(int) {
	s.Header().Del("Range")
	s.ResponseWriter.WriteHeader(s.status)
}

func TestUploadFormsOfKnownHosts(t *testing.T) {
	for _, c := range []struct {
		host     string
		override registry.UploadForm
		first    []int64 // sizes for which Put comes first
	}{
		{"registry.example.com", registry.UploadByHost, nil},
		{"123456789012.dkr.ecr.eu-west-1.amazonaws.com", registry.UploadByHost, nil},
		{"ghcr.io", registry.UploadByHost, nil},
		{"team.azurecr.io", registry.UploadByHost, nil},
		{"quay.io", registry.UploadByHost, nil},
		{"docker.io", registry.UploadByHost, nil},
		{"europe-docker.pkg.dev", registry.UploadByHost, []int64{1, 1 << 40}},
		{"europe-docker.pkg.dev:443", registry.UploadByHost, []int64{1, 1 << 40}},
		{"eu.gcr.io", registry.UploadByHost, []int64{1, 1 << 40}},
		{"notgcr.io", registry.UploadByHost, nil},
		{"europe-docker.pkg.dev", registry.UploadStreamed, nil},
		{"registry.example.com", registry.UploadWhole, []int64{1, 1 << 40}},
		{"team.azurecr.io", registry.UploadWhole, []int64{1, 1 << 40}},
	} {
		client := &registry.Client{Hosts: map[string]registry.Host{c.host: {Upload: c.override}}}
		p := open(t, client, c.host+"/team/model").(registry.Putter)
		for _, size := range []int64{1, 1 << 40} {
			if got, want := p.PutFirst(size), slices.Contains(c.first, size); got != want {
				t.Errorf("%s, override %d: PutFirst(%d) = %v, want %v", c.host, c.override, size, got, want)
			}
		}
	}
	// Not even tried where it is known to fail.
	s := open(t, new(registry.Client), "team.azurecr.io/team/model")
	d := ocispec.Descriptor{Digest: someDigest, Size: 1 << 30}
	if err := s.(registry.Putter).Put(t.Context(), d, nil); !errors.Is(err, registry.ErrUploadForm) {
		t.Errorf("1 GiB at once to a registry that takes 20 MB: got error %v, want ErrUploadForm", err)
	}
}

func TestStalledPutIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ociserver.New()
		s := within(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				io.CopyN(io.Discard, r.Body, 1000)
				<-r.Context().Done()
				return
			}
			server.ServeHTTP(w, r)
		}))
		start := time.Now()
		err := put(t.Context(), s, pattern(1<<20))
		if took := time.Since(start); !errors.Is(err, registry.ErrStalled) || took > registry.MaxAttempts*(registry.StallTimeout+10*time.Second) {
			t.Errorf("got error %v after %v, want ErrStalled", err, took)
		}
	})
}

// A registry may take minutes to store what it has.
func TestSlowCommitOfPutIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ociserver.New()
		s := within(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				b, _ := io.ReadAll(r.Body)
				r.Body = io.NopCloser(bytes.NewReader(b))
				time.Sleep(10 * time.Minute)
			}
			server.ServeHTTP(w, r)
		}))
		if err := put(t.Context(), s, pattern(1<<20)); err != nil {
			t.Error(err)
		}
	})
}
