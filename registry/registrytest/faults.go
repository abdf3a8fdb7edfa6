// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// RunFaults tests how a store that speaks to a registry over HTTP takes what
// misbehaving and hostile ones send. open returns the store of a repository of
// its choice behind server, which is a registry but for the fault; the store
// shows no credentials.
//
// Numbers in the names are those of the project's list of faults. Those that
// take half a minute each, such as a body of a byte a second, are left to the
// tests of the implementation, which can shorten time.
func RunFaults(t *testing.T, open func(t *testing.T, server http.Handler) registry.WriteStore) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *faultyStore)
	}{
		{"01TruncatedBodiesAreContinued", faultTruncated},
		{"02FlippedManifestsAreRefused", faultFlipped},
		{"03to08RepliesOtherThanAskedAreRefused", faultReplies},
		{"12SizesAreCheckedFirst", faultSizes},
		{"13LargeDocumentsAreNotRead", faultLarge},
		{"15AmbiguousManifestsAreRefused", faultAmbiguous},
		{"16ClaimedDigestsAreIgnored", faultClaims},
		{"21RedirectsStayInTheirNetwork", faultRedirects},
		{"22TokenServicesStayInTheirNetwork", faultRealms},
		{"24RepeatedRefusalsEnd", faultRefusals},
		{"24BusyServersAreAskedAgain", faultBusy},
		{"26CutsAtEveryEdgeAreContinued", faultCuts},
		{"31AddressesInDescriptorsAreIgnored", faultURLs},
		{"70LostUploadsAreNoticed", faultUploads},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &faultyStore{server: ociserver.New()}
			f.server.Fault = func(r *http.Request) *ociserver.Fault {
				fault := f.fault.Load()
				if fault == nil || !strings.HasPrefix(r.Method+" "+r.URL.Path, fault.method+" /v2/") || !strings.Contains(r.URL.Path, fault.part) {
					return nil
				}
				f.hits.Add(1)
				return fault.how
			}
			f.WriteStore = open(t, f.server)
			test.run(t, f)
		})
	}
}

// faultyStore is a store whose server misbehaves on demand.
type faultyStore struct {
	registry.WriteStore
	server *ociserver.Server
	fault  atomic.Pointer[fault]
	hits   atomic.Int32
}

type fault struct {
	method, part string
	how          *ociserver.Fault
}

func (f *faultyStore) misbehave(method, part string, how *ociserver.Fault) {
	f.hits.Store(0)
	f.fault.Store(&fault{method, part, how})
}

func (f *faultyStore) behave() { f.fault.Store(nil) }

// read returns what came before any error.
func (f *faultyStore) read(t *testing.T, d ocispec.Descriptor, off, n int64) ([]byte, error) {
	t.Helper()
	body, err := f.Fetch(t.Context(), d, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

func faultTruncated(t *testing.T, f *faultyStore) {
	b := content(50_000)
	d := push(t, f, b)
	f.misbehave("GET", "/blobs/", &ociserver.Fault{Cut: true, CutAfter: 20_000})
	got, err := f.read(t, d, 0, d.Size)
	var e *registry.Error
	if !errors.Is(err, io.ErrUnexpectedEOF) || !errors.As(err, &e) || !e.Temporary() {
		t.Fatalf("got error %v, want a temporary io.ErrUnexpectedEOF", err)
	}
	f.behave()
	equal(t, "both parts", append(got, fetch(t, f, d, int64(len(got)), d.Size-int64(len(got)))...), b)
}

func faultFlipped(t *testing.T, f *faultyStore) {
	d := pushManifest(t, f, manifest(t, f, "", "flipped", nil))
	for at := int64(0); at < d.Size; at += 7 {
		f.misbehave("GET", "/manifests/", &ociserver.Fault{Flip: []int64{at}})
		_, err := f.Resolve(t.Context(), d.Digest.String())
		wantError(t, fmt.Sprintf("Resolve with byte %d inverted", at), err, registry.ErrInvalid)
		_, err = f.read(t, d, 0, d.Size)
		wantError(t, fmt.Sprintf("Fetch with byte %d inverted", at), err, registry.ErrInvalid)
	}
}

func faultReplies(t *testing.T, f *faultyStore) {
	d := push(t, f, content(1000))
	header := func(name, value string) *ociserver.Fault {
		return &ociserver.Fault{Header: http.Header{name: {value}}}
	}
	for _, c := range []struct {
		name   string
		how    *ociserver.Fault
		off, n int64
		want   error
	}{
		{"200 for a range", &ociserver.Fault{IgnoreRange: true}, 100, 100, registry.ErrRangeIgnored},
		{"416 for a range", &ociserver.Fault{Status: http.StatusRequestedRangeNotSatisfiable}, 100, 100, registry.ErrRangeIgnored},
		{"no Content-Range", &ociserver.Fault{Header: http.Header{"Content-Range": nil}}, 100, 100, registry.ErrRangeIgnored},
		{"another range", header("Content-Range", "bytes 101-200/1000"), 100, 100, registry.ErrRangeIgnored},
		{"another total", header("Content-Range", "bytes 100-199/1001"), 100, 100, registry.ErrRangeIgnored},
		{"unknown total", header("Content-Range", "bytes 100-199/*"), 100, 100, registry.ErrRangeIgnored},
		{"206 for the whole", &ociserver.Fault{Status: http.StatusPartialContent, Body: content(1000)}, 0, 1000, registry.ErrRangeIgnored},
		{"several parts", &ociserver.Fault{Status: http.StatusPartialContent, Header: http.Header{"Content-Type": {"multipart/byteranges; boundary=x"}}, Body: content(100)}, 100, 100, registry.ErrRangeIgnored},
		{"bytes beyond the range", &ociserver.Fault{Extra: []byte("!")}, 100, 100, registry.ErrInvalid},
		{"bytes beyond the end", &ociserver.Fault{Extra: []byte("!")}, 0, 1000, registry.ErrInvalid},
		{"a longer blob", &ociserver.Fault{Status: http.StatusOK, Body: content(1001)}, 0, 1000, registry.ErrInvalid},
		{"a shorter blob", &ociserver.Fault{Status: http.StatusOK, Body: content(999)}, 0, 1000, registry.ErrInvalid},
		{"gzip", header("Content-Encoding", "gzip"), 0, 1000, registry.ErrInvalid},
		{"gzip of a range", header("Content-Encoding", "gzip"), 100, 100, registry.ErrInvalid},
	} {
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

func faultSizes(t *testing.T, f *faultyStore) {
	d := pushManifest(t, f, manifest(t, f, "", "size", nil))
	for _, size := range []int64{-1, 1 << 62, 5 << 20} {
		d.Size = size
		_, err := f.read(t, d, 0, 1)
		wantError(t, fmt.Sprintf("manifest of %d bytes", size), err, registry.ErrLimit)
	}
}

func faultLarge(t *testing.T, f *faultyStore) {
	large := bytes.Repeat([]byte(" "), 9<<20)
	for _, part := range []string{"/manifests/", "/tags/"} {
		f.misbehave("GET", part, &ociserver.Fault{Status: http.StatusOK, Body: large, Header: http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}}})
		var err error
		if part == "/tags/" {
			for _, err = range f.Tags(t.Context()) {
			}
		} else {
			_, err = f.Resolve(t.Context(), "v1")
		}
		wantError(t, part, err, registry.ErrLimit)
	}
	f.misbehave("GET", "/referrers/", &ociserver.Fault{Status: http.StatusOK, Body: large, Header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}}})
	var err error
	for _, err = range f.Referrers(t.Context(), describe([]byte("x")), "") {
	}
	wantError(t, "/referrers/", err, registry.ErrLimit)
	// Empty objects take much more memory than bytes.
	flood := []byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat("{},", 1_000_000) + "{}]}")
	f.misbehave("GET", "/referrers/", &ociserver.Fault{Status: http.StatusOK, Body: flood, Header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}}})
	for _, err = range f.Referrers(t.Context(), describe([]byte("x")), "") {
	}
	wantError(t, "a million referrers", err, registry.ErrLimit)
}
