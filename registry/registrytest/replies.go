// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// wrongReply is a reply to a request for a part of 1000 bytes that must be
// refused, without another request.
type wrongReply struct {
	name   string
	how    *ociserver.Fault
	off, n int64
	want   error
}

func withHeader(name string, values ...string) *ociserver.Fault {
	return &ociserver.Fault{Header: http.Header{name: values}}
}

func (f *faultyStore) refuses(t *testing.T, replies []wrongReply) {
	t.Helper()
	d := push(t, f, content(1000))
	for _, c := range replies {
		f.misbehave("GET", "/blobs/", c.how)
		got, err := f.read(t, d, c.off, c.n)
		wantError(t, c.name, err, c.want)
		if int64(len(got)) > c.n {
			t.Errorf("%s: reader yielded %d bytes, asked for %d", c.name, len(got), c.n)
		}
		if f.hits.Load() != 1 {
			t.Errorf("%s: asked %d times", c.name, f.hits.Load())
		}
	}
}

func faultWrongRanges(t *testing.T, f *faultyStore) {
	f.refuses(t, []wrongReply{
		{"no Content-Range", withHeader("Content-Range"), 100, 100, registry.ErrRangeIgnored},
		{"another range", withHeader("Content-Range", "bytes 101-200/1000"), 100, 100, registry.ErrRangeIgnored},
		{"another total", withHeader("Content-Range", "bytes 100-199/1001"), 100, 100, registry.ErrRangeIgnored},
		{"unknown total", withHeader("Content-Range", "bytes 100-199/*"), 100, 100, registry.ErrRangeIgnored},
		{"206 for the whole", &ociserver.Fault{Status: http.StatusPartialContent, Body: content(1000)}, 0, 1000, registry.ErrRangeIgnored},
		{"fewer bytes than the range", &ociserver.Fault{Status: http.StatusPartialContent, Body: content(99), Header: http.Header{"Content-Range": {"bytes 100-199/1000"}}}, 100, 100, registry.ErrInvalid},
	})
}

func faultWholeForRange(t *testing.T, f *faultyStore) {
	f.refuses(t, []wrongReply{
		{"200 for a range", &ociserver.Fault{IgnoreRange: true}, 100, 100, registry.ErrRangeIgnored},
		{"416 for a range", &ociserver.Fault{Status: http.StatusRequestedRangeNotSatisfiable}, 100, 100, registry.ErrRangeIgnored},
	})
}

// closedRange is the only form of Range that every registry understands.
var closedRange = regexp.MustCompile(`^bytes=[0-9]+-[0-9]+$`)

func faultOpenRanges(t *testing.T, f *faultyStore) {
	d := push(t, f, content(1000))
	f.watch(func(r *http.Request) {
		value := r.Header.Get("Range")
		var first, last int64
		if value == "" {
			return
		}
		if _, err := fmt.Sscanf(value, "bytes=%d-%d", &first, &last); err != nil || !closedRange.MatchString(value) || first > last || last >= d.Size {
			t.Errorf("asked for Range %q of %d bytes", value, d.Size)
		}
	})
	for _, r := range [][2]int64{{0, 1000}, {0, 1}, {0, 999}, {1, 999}, {999, 1}} {
		equal(t, "range", fetch(t, f, d, r[0], r[1]), content(1000)[r[0]:r[0]+r[1]])
	}
	for _, r := range [][2]int64{{0, 1001}, {1000, 1}, {-1, 10}, {10, 0}, {1 << 62, 1 << 62}} {
		if _, err := f.read(t, d, r[0], r[1]); err == nil {
			t.Errorf("a range of %d bytes at %d was fetched from 1000", r[1], r[0])
		}
	}
}

func faultSeveralParts(t *testing.T, f *faultyStore) {
	multipart := http.Header{"Content-Type": {"multipart/byteranges; boundary=x"}}
	part := "--x\r\nContent-Range: bytes 100-149/1000\r\n\r\n"
	f.refuses(t, []wrongReply{
		{"several parts", &ociserver.Fault{Status: http.StatusPartialContent, Header: multipart, Body: []byte(part)}, 100, 100, registry.ErrRangeIgnored},
		{"several parts in 100 bytes", &ociserver.Fault{Status: http.StatusPartialContent, Header: multipart, Body: content(100)}, 100, 100, registry.ErrRangeIgnored},
		{"two ranges in one", withHeader("Content-Range", "bytes 100-149/1000, bytes 150-199/1000"), 100, 100, registry.ErrRangeIgnored},
	})
}

func faultLongBodies(t *testing.T, f *faultyStore) {
	f.refuses(t, []wrongReply{
		{"bytes beyond the range", &ociserver.Fault{Extra: []byte("!")}, 100, 100, registry.ErrInvalid},
		{"bytes beyond the end", &ociserver.Fault{Extra: []byte("!")}, 0, 1000, registry.ErrInvalid},
		{"a longer blob", &ociserver.Fault{Status: http.StatusOK, Body: content(1001)}, 0, 1000, registry.ErrInvalid},
		{"a shorter blob", &ociserver.Fault{Status: http.StatusOK, Body: content(999)}, 0, 1000, registry.ErrInvalid},
	})
}

func faultEncodedBodies(t *testing.T, f *faultyStore) {
	f.refuses(t, []wrongReply{
		{"gzip", withHeader("Content-Encoding", "gzip"), 0, 1000, registry.ErrInvalid},
		{"gzip of a range", withHeader("Content-Encoding", "gzip"), 100, 100, registry.ErrInvalid},
		{"a body without end", &ociserver.Fault{Extra: content(1 << 16), Endless: true}, 0, 1000, registry.ErrInvalid},
		{"a range without end", &ociserver.Fault{Extra: content(1 << 16), Endless: true}, 100, 100, registry.ErrInvalid},
	})
	m := pushManifest(t, f, manifest(t, f, "", "endless", nil))
	for name, how := range map[string]*ociserver.Fault{
		"gzip":    withHeader("Content-Encoding", "gzip"),
		"endless": {Extra: content(1 << 16), Endless: true},
	} {
		f.misbehave("GET", "/manifests/", how)
		_, err := f.Resolve(t.Context(), m.Digest.String())
		lasting(t, "manifest, "+name, err)
	}
	f.watch(func(r *http.Request) {
		if got := r.Header.Values("Accept-Encoding"); r.Method == http.MethodGet && (len(got) != 1 || got[0] != "identity") {
			t.Errorf("%s %s accepts encodings %q", r.Method, r.URL.Path, got)
		}
	})
	fetch(t, f, push(t, f, content(1000)), 0, 1000)
	if _, err := f.Resolve(t.Context(), m.Digest.String()); err != nil {
		t.Error(err)
	}
}

// faultExpired has an object store that refuses every second address, as if its
// time had passed.
func faultExpired(t *testing.T, f *faultyStore) {
	d := push(t, f, content(1000))
	var asked atomic.Int32
	objects := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%2 == 1 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content(1000)))
	}))
	defer objects.Close()
	f.misbehave("GET", "/blobs/", &ociserver.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {objects.URL + "/object?signature=s3cret"}}})
	for off := int64(0); off < d.Size; off += 500 {
		equal(t, "range", fetch(t, f, d, off, 500), content(1000)[off:off+500])
	}
}

// faultNoReferrers has a registry without the referrers API, as ours all were
// once: who has pushed a referrer finds it all the same.
func faultNoReferrers(t *testing.T, f *faultyStore) {
	f.server.NoReferrers = true
	subject := pushManifest(t, f, manifest(t, f, "", "subject", nil))
	want := make(map[string]bool)
	for _, note := range []string{"first", "second"} {
		want[pushManifest(t, f, manifest(t, f, "application/vnd.example", note, &subject)).Digest.String()] = true
	}
	var listed []ocispec.Descriptor
	for d, err := range f.Referrers(t.Context(), subject, "application/vnd.example") {
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, d)
	}
	for _, d := range listed {
		if !want[d.Digest.String()] {
			t.Errorf("%s is no referrer", d.Digest)
		}
	}
	if len(listed) != len(want) {
		t.Errorf("%d referrers are listed, want %d", len(listed), len(want))
	}
}
