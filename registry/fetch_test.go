// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

func TestFetchSendsOnlyClosedRanges(t *testing.T) {
	r := &recorder{Handler: ociserver.New()}
	s := remote(t, r)
	d := pushBlob(t, s, pattern(1000))
	empty := pushBlob(t, s, nil)
	for _, c := range []struct {
		d      ocispec.Descriptor
		off, n int64
		want   string
	}{
		{d, 0, 1000, ""}, {d, 0, 1, "bytes=0-0"}, {d, 999, 1, "bytes=999-999"}, {d, 100, 900, "bytes=100-999"}, {empty, 0, 0, ""},
	} {
		r.take()
		if _, err := read(t, s, c.d, c.off, c.n); err != nil {
			t.Fatal(err)
		}
		for _, req := range r.take() {
			if got := req.Header.Get("Range"); got != c.want {
				t.Errorf("Fetch(%d, %d): Range is %q, want %q", c.off, c.n, got, c.want)
			}
			if got := req.Header.Get("Accept-Encoding"); got != "identity" {
				t.Errorf("Accept-Encoding is %q, want identity", got)
			}
		}
	}
}

func TestFetchRejectsWrongContentRange(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/blobs/", &fault))
	d := pushBlob(t, s, pattern(1000))
	for _, value := range []string{
		"", "bytes 101-200/1000", "bytes 100-198/1000", "bytes 100-200/1000", "bytes 100-199/1001", "bytes 100-199/*",
		"bytes 100-199", "100-199/1000", "bytes */1000", "bytes 100-199/1000, 300-399/1000",
	} {
		fault = &ociserver.Fault{Header: http.Header{"Content-Range": {value}}}
		if value == "" {
			fault.Header["Content-Range"] = nil
		}
		if _, err := read(t, s, d, 100, 100); !errors.Is(err, registry.ErrRangeIgnored) {
			t.Errorf("Content-Range %q: got error %v, want ErrRangeIgnored", value, err)
		}
	}
	// Several parts in one reply carry their ranges inside.
	fault = &ociserver.Fault{Status: http.StatusPartialContent, Header: http.Header{"Content-Type": {"multipart/byteranges; boundary=x"}}, Body: pattern(100)}
	if _, err := read(t, s, d, 100, 100); !errors.Is(err, registry.ErrRangeIgnored) {
		t.Errorf("multipart reply: got error %v, want ErrRangeIgnored", err)
	}
	fault = &ociserver.Fault{Status: http.StatusRequestedRangeNotSatisfiable}
	if _, err := read(t, s, d, 100, 100); !errors.Is(err, registry.ErrRangeIgnored) {
		t.Errorf("status 416: got error %v, want ErrRangeIgnored", err)
	}
}

func TestFetchReportsIgnoredRange(t *testing.T) {
	fault := &ociserver.Fault{IgnoreRange: true}
	server := faulty(http.MethodGet, "/blobs/", &fault)
	s := remote(t, server)
	d := pushBlob(t, s, pattern(64<<20))
	if _, err := read(t, s, d, 1, 100); !errors.Is(err, registry.ErrRangeIgnored) {
		t.Errorf("got error %v, want ErrRangeIgnored", err)
	}
	if got := server.Requests("GET blob"); got != 1 {
		t.Errorf("%d requests, want 1: another would get the whole blob again", got)
	}
	if b, err := read(t, s, d, 0, d.Size); err != nil || int64(len(b)) != d.Size {
		t.Errorf("whole blob: %d bytes, %v", len(b), err)
	}
}

func TestFetchRejectsPartialContentForTheWhole(t *testing.T) {
	fault := &ociserver.Fault{Status: http.StatusPartialContent, Body: pattern(10), Header: http.Header{"Content-Range": {"bytes 0-9/10"}}}
	s := remote(t, faulty(http.MethodGet, "/blobs/", &fault))
	d := pushBlob(t, s, pattern(10))
	if _, err := read(t, s, d, 0, 10); !errors.Is(err, registry.ErrRangeIgnored) {
		t.Errorf("got error %v, want ErrRangeIgnored", err)
	}
}

func TestFetchReportsTruncationAndContinues(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/blobs/", &fault))
	b := pattern(70_000)
	d := pushBlob(t, s, b)
	for _, cut := range []int64{0, 1, 4095, 4096, 65_535, 65_536, 69_999} {
		for _, off := range []int64{0, 7} {
			n := d.Size - off
			if cut >= n {
				continue
			}
			fault = &ociserver.Fault{Cut: true, CutAfter: cut}
			got, err := read(t, s, d, off, n)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("cut after %d: got error %v, want io.ErrUnexpectedEOF", cut, err)
			}
			var e *registry.Error
			if !errors.As(err, &e) || !e.Temporary() {
				t.Errorf("cut after %d: %v is not temporary", cut, err)
			}
			if !bytes.Equal(got, b[off:off+int64(len(got))]) {
				t.Errorf("cut after %d: bytes before the cut are wrong", cut)
			}
			fault = nil
			rest, err := read(t, s, d, off+int64(len(got)), n-int64(len(got)))
			if err != nil || !bytes.Equal(append(got, rest...), b[off:]) {
				t.Errorf("cut after %d: the rest is wrong: %v", cut, err)
			}
		}
	}
}

// lying serves one blob in a way that net/http's server would not.
func lying(reply func(w http.ResponseWriter, r *http.Request)) http.Handler {
	s := ociserver.New()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			reply(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
}

func TestFetchRejectsBytesBeyondTheEnd(t *testing.T) {
	fault := &ociserver.Fault{Extra: []byte("!")}
	s := remote(t, faulty(http.MethodGet, "/blobs/", &fault))
	b := pattern(1000)
	d := pushBlob(t, s, b)
	for _, off := range []int64{0, 100} {
		got, err := read(t, s, d, off, d.Size-off)
		if !errors.Is(err, registry.ErrInvalid) || !bytes.Equal(got, b[off:]) {
			t.Errorf("off %d: got %d bytes and error %v, want %d and ErrInvalid", off, len(got), err, d.Size-off)
		}
	}
	long := remote(t, lying(func(w http.ResponseWriter, _ *http.Request) { w.Write(pattern(1001)) }))
	if _, err := read(t, long, d, 0, d.Size); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("longer body with its length: got error %v, want ErrInvalid", err)
	}
	short := remote(t, lying(func(w http.ResponseWriter, _ *http.Request) { w.Write(pattern(999)) }))
	if _, err := read(t, short, d, 0, d.Size); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("shorter body with its length: got error %v, want ErrInvalid", err)
	}
}

func TestFetchStopsReadingEndlessBodies(t *testing.T) {
	var written int
	done := make(chan struct{})
	s := remote(t, lying(func(w http.ResponseWriter, _ *http.Request) {
		defer close(done)
		for {
			n, err := w.Write(pattern(64 << 10))
			if written += n; err != nil {
				return
			}
		}
	}))
	d := ocispec.Descriptor{Digest: digest.FromString("endless"), Size: 100_000}
	if got, err := read(t, s, d, 0, d.Size); !errors.Is(err, registry.ErrInvalid) || int64(len(got)) != d.Size {
		t.Errorf("got %d bytes and error %v, want %d and ErrInvalid", len(got), err, d.Size)
	}
	<-done
	if written > 64<<20 {
		t.Errorf("server could write %d bytes", written)
	}
}

func TestFetchRefusesContentEncodings(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/v2/", &fault))
	d := pushBlob(t, s, pattern(1000))
	m := pushManifest(t, s, "encoded", nil)
	fault = &ociserver.Fault{Header: http.Header{"Content-Encoding": {"gzip"}}}
	for _, d := range []ocispec.Descriptor{d, m} {
		if _, err := read(t, s, d, 0, d.Size); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: got error %v, want ErrInvalid", d.MediaType, err)
		}
	}
}

func TestFetchRefusesAbsurdSizes(t *testing.T) {
	s := remote(t, ociserver.New())
	real := pushBlob(t, s, pattern(1000))
	for _, size := range []int64{math.MaxInt64, 1 << 62, -1} {
		d := real
		d.Size = size
		if _, err := read(t, s, d, 0, size); err == nil {
			t.Errorf("blob of %d bytes: no error", size)
		}
		d.MediaType = ocispec.MediaTypeImageManifest
		if _, err := read(t, s, d, 0, 1); !errors.Is(err, registry.ErrLimit) {
			t.Errorf("manifest of %d bytes: got error %v, want ErrLimit", size, err)
		}
	}
}

func TestFetchIgnoresURLsOfDescriptors(t *testing.T) {
	trap := &recorder{Handler: http.NotFoundHandler()}
	host := serve(t, trap)
	s := remote(t, ociserver.New())
	d := pushBlob(t, s, pattern(10))
	d.URLs = []string{"http://" + host + "/elsewhere"}
	if _, err := read(t, s, d, 0, 10); err != nil {
		t.Error(err)
	}
	d.Digest = digest.FromString("absent")
	if _, err := read(t, s, d, 0, 10); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
	if got := trap.take(); len(got) != 0 {
		t.Errorf("%d requests to an address in a descriptor", len(got))
	}
}

func TestManifestsRejectEveryFlippedByte(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/manifests/", &fault))
	d := pushManifest(t, s, "flip", nil)
	for at := range d.Size {
		fault = &ociserver.Fault{Flip: []int64{at}}
		if _, err := s.Resolve(t.Context(), d.Digest.String()); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("Resolve with byte %d inverted: got error %v, want ErrInvalid", at, err)
		}
		if _, err := read(t, s, d, 0, d.Size); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("Fetch with byte %d inverted: got error %v, want ErrInvalid", at, err)
		}
	}
}
