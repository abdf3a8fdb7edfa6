// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

var subject = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("subject"), Size: 7}

// index returns a listing of n made-up referrers, beginning at from.
func index(from, n int, annotation string) []byte {
	i := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	for k := range n {
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(fmt.Sprint(from + k)), Size: 10}
		if annotation != "" {
			d.Annotations = map[string]string{"x": annotation}
		}
		i.Manifests = append(i.Manifests, d)
	}
	b, err := json.Marshal(i)
	if err != nil {
		panic(err)
	}
	return b
}

// listing answers every request for referrers with page(number of request).
func listing(page func(n int) (body []byte, header http.Header)) http.Handler {
	n := 0
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, header := page(n)
		n++
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		for name, values := range header {
			w.Header()[name] = values
		}
		w.Write(body)
	})
}

func count(t *testing.T, s registry.Store) (int, error) {
	t.Helper()
	n := 0
	for _, err := range s.Referrers(t.Context(), subject, "") {
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func TestReferrersAreBounded(t *testing.T) {
	next := http.Header{"Link": {`</v2/team/model/referrers/x?page=next>; rel="next"`}}
	for name, page := range map[string]func(int) ([]byte, http.Header){
		"one page of 20,000": func(int) ([]byte, http.Header) { return index(0, 20_000, ""), nil },
		"a million empty ones": func(int) ([]byte, http.Header) {
			return []byte(`{"manifests":[` + strings.Repeat(`{},`, 1_000_000) + `{}]}`), nil
		},
		"endless full pages":  func(n int) ([]byte, http.Header) { return index(n*100, 100, ""), next },
		"endless empty pages": func(int) ([]byte, http.Header) { return index(0, 0, ""), next },
		"endless large pages": func(n int) ([]byte, http.Header) { return index(n, 1, strings.Repeat("x", 1<<20)), next },
		"one page over 4 MiB": func(int) ([]byte, http.Header) { return index(0, 1, strings.Repeat("x", 5<<20)), nil },
	} {
		t.Run(name, func(t *testing.T) {
			s := remote(t, listing(page))
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			n, err := count(t, s)
			runtime.GC()
			runtime.ReadMemStats(&after)
			if !errors.Is(err, registry.ErrLimit) || n > registry.MaxReferrers {
				t.Errorf("got %d entries and error %v, want at most %d and ErrLimit", n, err, registry.MaxReferrers)
			}
			if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
				t.Errorf("heap grew by %d bytes", grown)
			}
		})
	}
}

func TestReferrersReadsAllOfALongListing(t *testing.T) {
	s := remote(t, listing(func(n int) ([]byte, http.Header) {
		if n == 49 {
			return index(n*200, 200, ""), nil
		}
		return index(n*200, 200, ""), http.Header{"Link": {fmt.Sprintf(`<?page=%d>; rel=next`, n)}}
	}))
	if n, err := count(t, s); n != registry.MaxReferrers || err != nil {
		t.Errorf("got %d entries and error %v, want %d", n, err, registry.MaxReferrers)
	}
}

func TestNextPageStaysAtTheOrigin(t *testing.T) {
	trap := &recorder{Handler: http.NotFoundHandler()}
	trapHost := serve(t, trap)
	for _, link := range []string{
		"<http://" + trapHost + `/v2/x>; rel="next"`, "<//" + trapHost + `/x>; rel="next"`, `<https://example.com/>; rel="next"`,
		`<http://169.254.169.254/>; rel=next`, `<file:///etc/passwd>; rel="next"`, `</x`, `x>`, `<http://[>; rel="next"`,
	} {
		header := http.Header{"Link": {link}}
		s := remote(t, listing(func(int) ([]byte, http.Header) { return index(0, 1, ""), header }))
		if _, err := count(t, s); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("Link %s: got error %v, want ErrInvalid", link, err)
		}
		header["Content-Type"] = []string{"application/json"}
		tags := remote(t, listing(func(int) ([]byte, http.Header) { return []byte(`{"name":"x","tags":["v1"]}`), header }))
		var last error
		for _, last = range tags.Tags(t.Context()) {
		}
		if !errors.Is(last, registry.ErrInvalid) {
			t.Errorf("tags, Link %s: got error %v, want ErrInvalid", link, last)
		}
	}
	if n := len(trap.take()); n != 0 {
		t.Errorf("%d requests to another origin", n)
	}
}

func TestListingsMustBeWellFormed(t *testing.T) {
	for _, body := range []string{`{"manifests":[],"manifests":[]}`, `{"manifests":{}}`, `{"mediaType":"x","manifests":[]}`, `[]`, `{`, `{"Manifests":[]}`} {
		s := remote(t, listing(func(int) ([]byte, http.Header) { return []byte(body), nil }))
		if _, err := count(t, s); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: got error %v, want ErrInvalid", body, err)
		}
	}
	for _, body := range []string{`{"tags":["a"],"tags":["b"]}`, `{"tags":[1]}`, `{"tags":["a/b"]}`, `{"tags":["\u0000"]}`, `x`} {
		s := remote(t, listing(func(int) ([]byte, http.Header) { return []byte(body), nil }))
		var last error
		for _, last = range s.Tags(t.Context()) {
		}
		if !errors.Is(last, registry.ErrInvalid) {
			t.Errorf("%s: got error %v, want ErrInvalid", body, last)
		}
	}
}

// An answer that fails is not an empty listing.
func TestReferrersReportsFailures(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusBadRequest, http.StatusTeapot} {
		s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		if n, err := count(t, s); n != 0 || err == nil {
			t.Errorf("status %d: got %d entries and error %v", status, n, err)
		}
	}
	// The API is gone after it had answered: a page in the middle, or the host.
	next := http.Header{"Link": {`<?page=2>; rel="next"`}}
	server := listing(func(n int) ([]byte, http.Header) { return index(n, 1, ""), next })
	requests := 0
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if requests++; requests > 1 {
			http.NotFound(w, r)
			return
		}
		server.ServeHTTP(w, r)
	}))
	for range 2 {
		if _, err := count(t, s); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("got error %v, want ErrNotFound", err)
		}
	}
}

// Without the API, what other tools listed is yielded as it is: cosign writes
// another artifactType there than its manifests have.
func TestFallbackListingIsYieldedAsItIs(t *testing.T) {
	server := ociserver.New()
	server.NoReferrers = true
	s := remote(t, server)
	entry := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString("bundle"), Size: 3, ArtifactType: "application/vnd.oci.empty.v1+json"}
	b, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageIndex, b)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), d, strings.Replace(subject.Digest.String(), ":", "-", 1)); err != nil {
		t.Fatal(err)
	}
	// Ours joins it, and does not replace it.
	ours := pushManifest(t, s, "ours", &subject)
	want := map[digest.Digest]string{entry.Digest: entry.ArtifactType, ours.Digest: "application/vnd.example.v1+json"}
	for d, err := range s.Referrers(t.Context(), subject, "application/vnd.dev.sigstore.bundle.v0.3+json") {
		if err != nil {
			t.Fatal(err)
		}
		if d.ArtifactType != want[d.Digest] {
			t.Errorf("got %+v", d)
		}
		delete(want, d.Digest)
	}
	if len(want) != 0 {
		t.Errorf("left out: %v", want)
	}
}

// Several programs push referrers of one subject to a registry that leaves the
// listing to them.
func TestFallbackListingSurvivesOtherWriters(t *testing.T) {
	server := ociserver.New()
	server.NoReferrers = true
	host := serve(t, server)
	var group sync.WaitGroup
	for i := range 4 {
		group.Go(func() {
			s := open(t, &registry.Client{Credentials: anonymous}, host+"/team/model")
			if _, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifestOf(t, fmt.Sprint(i), &subject)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n, err := count(t, open(t, &registry.Client{Credentials: anonymous}, host+"/team/model")); n != 4 || err != nil {
		t.Errorf("got %d referrers and error %v, want 4", n, err)
	}
}

func TestFallbackListingIsRepairedAfterALostUpdate(t *testing.T) {
	server := ociserver.New()
	server.NoReferrers = true
	tag := "/manifests/" + strings.Replace(subject.Digest.String(), ":", "-", 1)
	lost := 0
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, tag) {
			if lost++; lost <= 3 {
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		server.ServeHTTP(w, r)
	}))
	pushManifest(t, s, "lost", &subject)
	if n, err := count(t, s); n != 1 || err != nil {
		t.Errorf("got %d referrers and error %v, want 1", n, err)
	}
}

func TestLostReferrerIsPushedAgain(t *testing.T) {
	server := ociserver.New()
	lost := 0
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			if lost++; lost <= 2 {
				w.Header().Set("OCI-Subject", subject.Digest.String())
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		server.ServeHTTP(w, r)
	}))
	pushManifest(t, s, "lost", &subject)
	if n, err := count(t, s); n != 1 || err != nil {
		t.Errorf("got %d referrers and error %v, want 1", n, err)
	}
}

func TestDeleteUnlistsBeforeItDeletes(t *testing.T) {
	server := ociserver.New()
	server.NoReferrers = true
	r := &recorder{Handler: server}
	s := remote(t, r)
	d := pushManifest(t, s, "gone", &subject)
	r.take()
	if err := s.Delete(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, req := range r.take() {
		if req.Method == http.MethodPut || req.Method == http.MethodDelete {
			order = append(order, req.Method)
		}
	}
	if strings.Join(order, " ") != "PUT DELETE" {
		t.Errorf("requests that change something: %v, want PUT DELETE", order)
	}
	if n, err := count(t, s); n != 0 || err != nil {
		t.Errorf("got %d referrers and error %v, want none", n, err)
	}
}
