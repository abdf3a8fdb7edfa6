// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

func faultAmbiguous(t *testing.T, f *faultyStore) {
	plain := manifest(t, f, "", "ambiguous", nil)
	for name, c := range map[string]struct {
		mediaType string
		b         []byte
	}{
		"layers and manifests": {ocispec.MediaTypeImageManifest, bytes.Replace(plain, []byte(`"layers"`), []byte(`"manifests":[],"layers"`), 1)},
		"repeated key":         {ocispec.MediaTypeImageManifest, bytes.Replace(plain, []byte(`"layers"`), []byte(`"layers":[],"layers"`), 1)},
		"served as an index":   {ocispec.MediaTypeImageIndex, plain},
		"served as a page":     {"text/html", plain},
	} {
		f.misbehave("GET", "/manifests/", &ociserver.Fault{Status: http.StatusOK, Body: c.b, Header: http.Header{"Content-Type": {c.mediaType}}})
		_, err := f.Resolve(t.Context(), "v1")
		wantError(t, name, err, registry.ErrInvalid)
	}
}

func faultClaims(t *testing.T, f *faultyStore) {
	d := pushManifest(t, f, manifest(t, f, "", "claims", nil))
	for _, claim := range []string{digest.FromString("other").String(), digest.SHA512.FromString("x").String(), "nonsense"} {
		f.misbehave("GET", "/manifests/", &ociserver.Fault{Header: http.Header{"Docker-Content-Digest": {claim}}})
		got, err := f.Resolve(t.Context(), d.Digest.String())
		if err != nil || got.Digest != d.Digest {
			t.Errorf("with %q claimed: Resolve = %s, %v", claim, got.Digest, err)
		}
	}
}

func faultRedirects(t *testing.T, f *faultyStore) {
	d := push(t, f, content(1000))
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Authorization", "Referer", "Cookie"} {
			if r.Header.Get(name) != "" {
				t.Errorf("%s reached another origin", name)
			}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content(1000)))
	}))
	defer elsewhere.Close()
	to := func(location string) *ociserver.Fault {
		return &ociserver.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {location}}}
	}
	f.misbehave("GET", "/blobs/", to(elsewhere.URL+"/object?signature=s3cret"))
	got, err := f.read(t, d, 100, 200)
	if err != nil {
		t.Errorf("redirect within the network: %v", err)
	}
	equal(t, "redirected range", got, content(1000)[100:300])
	for _, location := range []string{"http://169.254.169.254/latest?key=s3cret", "http://[fe80::1]/", "http://0.0.0.0:1/", "file:///etc/passwd", "ftp://example.com/"} {
		f.misbehave("GET", "/blobs/", to(location))
		_, err := f.read(t, d, 0, d.Size)
		lasting(t, "redirect to "+location, err)
	}
}

// lasting demands an error that is not worth trying again, and tells nothing.
func lasting(t *testing.T, what string, err error) {
	t.Helper()
	var e *registry.Error
	if !errors.As(err, &e) || e.Temporary() || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("%s: got error %v, want a lasting *registry.Error", what, err)
	} else if bytes.Contains([]byte(err.Error()), []byte("s3cret")) {
		t.Errorf("%s: the error shows a secret: %v", what, err)
	}
}

func faultRealms(t *testing.T, f *faultyStore) {
	for _, realm := range []string{"http://169.254.169.254/latest?key=s3cret", "http://10.0.0.1/token", "http://100.100.100.200/", "file:///etc/passwd"} {
		f.misbehave("GET", "/manifests/", &ociserver.Fault{
			Status: http.StatusUnauthorized,
			Header: http.Header{"Www-Authenticate": {`Bearer realm="` + realm + `",service="x"`}},
		})
		_, err := f.Resolve(t.Context(), "v1")
		lasting(t, "token service at "+realm, err)
	}
}

func faultRefusals(t *testing.T, f *faultyStore) {
	for _, challenge := range []string{"Basic", `Basic realm="x"`, "", "Negotiate"} {
		f.misbehave("GET", "/manifests/", &ociserver.Fault{Status: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {challenge}}})
		_, err := f.Resolve(t.Context(), "v1")
		wantError(t, "challenge "+challenge, err, registry.ErrUnauthorized)
		if n := f.hits.Load(); n > 4 {
			t.Errorf("challenge %q: asked %d times", challenge, n)
		}
	}
}

func faultBusy(t *testing.T, f *faultyStore) {
	m := pushManifest(t, f, manifest(t, f, "", "busy", nil))
	f.misbehave("GET", "/manifests/", &ociserver.Fault{Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}})
	start := time.Now()
	timer := time.AfterFunc(500*time.Millisecond, f.behave)
	defer timer.Stop()
	if _, err := f.Resolve(t.Context(), m.Digest.String()); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < time.Second || f.hits.Load() > 1 {
		t.Errorf("asked again after %v, and %d times while busy; want once after one second", took, f.hits.Load())
	}
}

func faultCuts(t *testing.T, f *faultyStore) {
	const part = 4096
	b := content(4 * part)
	d := push(t, f, b)
	for edge := int64(0); edge <= d.Size; edge += part {
		for _, cut := range []int64{edge - 1, edge, edge + 1} {
			if cut < 0 || cut >= d.Size {
				continue
			}
			f.misbehave("GET", "/blobs/", &ociserver.Fault{Cut: true, CutAfter: cut})
			got, err := f.read(t, d, 0, d.Size)
			wantError(t, "cut", err, io.ErrUnexpectedEOF)
			f.behave()
			rest := int64(len(got))
			equal(t, "both parts", append(got, fetch(t, f, d, rest, d.Size-rest)...), b)
		}
	}
}

func faultURLs(t *testing.T, f *faultyStore) {
	trap := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("an address in a descriptor was asked") }))
	defer trap.Close()
	d := describe(content(10))
	d.URLs = []string{trap.URL}
	_, err := f.read(t, d, 0, 10)
	wantError(t, "absent blob with addresses", err, registry.ErrNotFound)
}

func faultUploads(t *testing.T, f *faultyStore) {
	b := content(100_000)
	d := describe(b)
	other := http.Header{"Docker-Content-Digest": {digest.FromString("other").String()}}
	for name, c := range map[string]fault{
		"201 with another digest":     {"PUT", "/uploads/", &ociserver.Fault{Header: other}},
		"bytes lost":                  {"PATCH", "/uploads/", &ociserver.Fault{Header: http.Header{"Range": {"0-9"}}}},
		"session at another origin":   {"POST", "/uploads/", &ociserver.Fault{Header: http.Header{"Location": {"https://elsewhere.example.com/upload"}}}},
		"session nowhere":             {"POST", "/uploads/", &ociserver.Fault{Header: http.Header{"Location": nil}}},
		"connection cut":              {"PATCH", "/uploads/", &ociserver.Fault{Drop: true}},
		"202 for the end":             {"PUT", "/uploads/", &ociserver.Fault{Status: http.StatusAccepted}},
		"content too large in pieces": {"PATCH", "/uploads/", &ociserver.Fault{Status: http.StatusRequestEntityTooLarge}},
	} {
		f.misbehave(c.method, c.part, c.how)
		if err := pushBlob(t.Context(), f, b, d.Digest); err == nil {
			t.Errorf("%s: upload succeeded", name)
		}
	}
	f.behave()
	push(t, f, b)
	equal(t, "blob", fetch(t, f, d, 0, d.Size), b)
	m := manifest(t, f, "", "stored", nil)
	f.misbehave("PUT", "/manifests/", &ociserver.Fault{Header: other})
	if _, err := f.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, m); err == nil {
		t.Error("manifest stored under another digest: PushManifest succeeded")
	}
}
