// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
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
		{"03WrongRangesAreRefused", faultWrongRanges},
		{"04WholeBlobsForARangeAreReported", faultWholeForRange},
		{"05OnlyClosedRangesAreAsked", faultOpenRanges},
		{"06SeveralPartsAreRefused", faultSeveralParts},
		{"07BytesBeyondTheEndAreRefused", faultLongBodies},
		{"08EndlessAndEncodedBodiesAreRefused", faultEncodedBodies},
		{"12SizesAreCheckedFirst", faultSizes},
		{"13LargeDocumentsAreNotRead", faultLarge},
		{"15AmbiguousManifestsAreRefused", faultAmbiguous},
		{"16ClaimedDigestsAreIgnored", faultClaims},
		{"21RedirectsStayInTheirNetwork", faultRedirects},
		{"22TokenServicesStayInTheirNetwork", faultRealms},
		{"23ExpiredAddressesAreAskedForAgain", faultExpired},
		{"24RepeatedRefusalsEnd", faultRefusals},
		{"24BusyServersAreAskedAgain", faultBusy},
		{"26CutsAtEveryEdgeAreContinued", faultCuts},
		{"31AddressesInDescriptorsAreIgnored", faultURLs},
		{"70LostUploadsAreNoticed", faultUploads},
		{"70ReferrersAreListedWithoutTheAPI", faultNoReferrers},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &faultyStore{server: ociserver.New()}
			f.server.Fault = func(r *http.Request) *ociserver.Fault {
				if look := f.look.Load(); look != nil {
					(*look)(r)
				}
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
	look   atomic.Pointer[func(*http.Request)]
}

type fault struct {
	method, part string
	how          *ociserver.Fault
}

func (f *faultyStore) misbehave(method, part string, how *ociserver.Fault) {
	f.hits.Store(0)
	f.fault.Store(&fault{method, part, how})
}

// watch has every request looked at from now on, and ends misbehaviour.
func (f *faultyStore) watch(look func(*http.Request)) {
	f.behave()
	f.look.Store(&look)
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
	// What fits into a manifest must not take much more memory than that.
	for name, b := range map[string]string{
		"deep":        `{"layers":` + strings.Repeat("[", 4_000_000),
		"layers":      `{"schemaVersion":2,"layers":[` + strings.Repeat("{},", 1_000_000) + "{}]}",
		"annotations": `{"schemaVersion":2,"annotations":{` + strings.Repeat(`"":"",`, 600_000) + `"":""}}`,
	} {
		f.misbehave("GET", "/manifests/", &ociserver.Fault{Status: http.StatusOK, Body: []byte(b), Header: http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}}})
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := f.Resolve(t.Context(), "v1")
		runtime.ReadMemStats(&after)
		if err != nil {
			lasting(t, name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 64<<20 {
			t.Errorf("%s: a manifest of %d bytes took %d of memory", name, len(b), took)
		}
	}
}
