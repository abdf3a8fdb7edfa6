// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

func TestResolveComputesTheDigest(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/manifests/", &fault))
	d := pushManifest(t, s, "lie", nil)
	if err := s.Tag(t.Context(), d, "v1"); err != nil {
		t.Fatal(err)
	}
	for _, lie := range []string{digest.FromString("other").String(), digest.SHA512.FromString("x").String(), "nonsense"} {
		fault = &ociserver.Fault{Header: http.Header{"Docker-Content-Digest": {lie}}}
		for _, ref := range []string{"v1", d.Digest.String()} {
			if got, err := s.Resolve(t.Context(), ref); err != nil || got.Digest != d.Digest {
				t.Errorf("Resolve(%s) with Docker-Content-Digest %s = %s, %v", ref, lie, got.Digest, err)
			}
		}
	}
	// Another manifest under a digest is refused, whatever the headers say.
	fault = &ociserver.Fault{Status: http.StatusOK, Body: manifestOf(t, "other", nil), Header: http.Header{
		"Content-Type": {ocispec.MediaTypeImageManifest}, "Docker-Content-Digest": {d.Digest.String()},
	}}
	if _, err := s.Resolve(t.Context(), d.Digest.String()); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("other manifest: got error %v, want ErrInvalid", err)
	}
}

func TestResolveRefusesAmbiguousDocuments(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/manifests/", &fault))
	const manifest, index = ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	for name, c := range map[string]struct{ served, body string }{
		"both kinds":                {manifest, `{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}`},
		"config in an index":        {index, `{"schemaVersion":2,"config":{},"manifests":[]}`},
		"schema 1 in an index":      {index, `{"schemaVersion":2,"fsLayers":[],"manifests":[]}`},
		"layers served as an index": {index, `{"schemaVersion":2,"layers":[]}`},
		"index served as manifest":  {manifest, `{"schemaVersion":2,"manifests":[]}`},
		"types differ":              {manifest, `{"schemaVersion":2,"mediaType":"` + index + `","layers":[]}`},
		"repeated key":              {manifest, `{"schemaVersion":2,"layers":[],"layers":[{}]}`},
		"repeated key inside":       {manifest, `{"schemaVersion":2,"layers":[{"digest":"a","digest":"b"}]}`},
		"case variant":              {manifest, `{"schemaVersion":2,"layers":[],"Layers":[]}`},
		"trailing document":         {manifest, `{"schemaVersion":2,"layers":[]}{}`},
		"deep":                      {manifest, `{"schemaVersion":2,"layers":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`},
		"not a manifest type":       {"text/html", `{"schemaVersion":2,"layers":[]}`},
		"no type at all":            {"", `{"schemaVersion":2}`},
		"empty":                     {manifest, ``},
	} {
		fault = &ociserver.Fault{Status: http.StatusOK, Body: []byte(c.body), Header: http.Header{"Content-Type": {c.served}}}
		if c.served == "" {
			fault.Header["Content-Type"] = nil
		}
		if d, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: got %v, %v; want ErrInvalid", name, d, err)
		}
	}
}

func TestResolveBoundsManifests(t *testing.T) {
	var fault *ociserver.Fault
	s := remote(t, faulty(http.MethodGet, "/manifests/", &fault))
	body := func(layer string) []byte {
		const head, tail = `{"schemaVersion":2,"layers":[`, `{}]}`
		return []byte(head + strings.Repeat(layer, (registry.MaxManifest-len(head)-len(tail))/len(layer)) + tail)
	}
	annotations := new(strings.Builder)
	for i := range 300_000 {
		fmt.Fprintf(annotations, `"%06x":"",`, i)
	}
	for name, b := range map[string][]byte{
		"a million layers": body(`{},`),
		"many annotations": []byte(`{"schemaVersion":2,"annotations":{` + annotations.String() + `"x":""},"layers":[]}`),
	} {
		fault = &ociserver.Fault{Status: http.StatusOK, Body: b, Header: http.Header{"Content-Type": {ocispec.MediaTypeImageManifest}}}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		d, err := s.Resolve(t.Context(), "v1")
		runtime.GC()
		runtime.ReadMemStats(&after)
		if err != nil || d.Size != int64(len(b)) {
			t.Errorf("%s: %v, %v", name, d, err)
		}
		if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 64<<20 {
			t.Errorf("%s: heap grew by %d bytes", name, grown)
		}
	}
	large := append(body(`{},`), make([]byte, 100)...)
	for name, header := range map[string]http.Header{
		"with its length":  {"Content-Type": {ocispec.MediaTypeImageManifest}},
		"without a length": {"Content-Type": {ocispec.MediaTypeImageManifest}, "Content-Length": nil, "Transfer-Encoding": {"chunked"}},
	} {
		fault = &ociserver.Fault{Status: http.StatusOK, Body: large, Header: header}
		if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrLimit) {
			t.Errorf("over the limit, %s: got error %v, want ErrLimit", name, err)
		}
	}
}

// FuzzParseManifest and FuzzParseIndex hold the readers to their bounds; what
// the one takes, the other refuses.
func FuzzParseManifest(f *testing.F) {
	for _, s := range []string{
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}`,
		`{"schemaVersion":2,"layers":[],"manifests":[]}`, `{"layers":[{"digest":"a","digest":"b"}]}`,
		`{"subject":{"digest":"sha512:00"},"layers":[]}`, `{"annotations":{"a":1},"layers":null}`, `[]`, `{"Layers":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		asManifest := registry.ParseManifestForTest(ocispec.MediaTypeImageManifest, b)
		asIndex := registry.ParseManifestForTest(ocispec.MediaTypeImageIndex, b)
		if asManifest == nil && asIndex == nil && (strings.Contains(string(b), `"layers":[`) || strings.Contains(string(b), `"manifests":[`)) {
			if registry.ParseManifestForTest("", b) == nil {
				t.Errorf("%q is both a manifest and an index", b)
			}
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	for _, s := range []string{
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`,
		`{"manifests":[{"mediaType":"m","digest":"sha256:00","size":-1,"platform":{"os":"x"},"annotations":{"a":"b"}}]}`,
		`{"manifests":[{},{},{}]}`, `{"manifests":null}`, `{"manifests":[{"data":"AA=="}]}`, `{"mediaType":"x","manifests":[]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := registry.ParseIndexForTest(b); err == nil && n > registry.MaxReferrers {
			t.Errorf("%d entries", n)
		}
	})
}
