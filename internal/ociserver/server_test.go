// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package ociserver_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/ociserver"
)

// do sends a request and returns the reply with its body read.
func do(t *testing.T, s http.Handler, method, target string, body []byte, header ...string) (*http.Response, []byte) {
	t.Helper()
	r := httptest.NewRequest(method, target, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	b, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), b
}

func TestUploadInPieces(t *testing.T) {
	s := ociserver.New()
	content := []byte("hello, world")
	d := digest.FromBytes(content)
	resp, _ := do(t, s, http.MethodPost, "/v2/a/b/blobs/uploads/", nil)
	location := resp.Header.Get("Location")
	for _, c := range []struct {
		extent string
		body   []byte
		status int
		now    string
	}{
		{"0-4", content[:5], http.StatusAccepted, "0-4"},
		{"0-4", content[:5], http.StatusRequestedRangeNotSatisfiable, "0-4"},
		{"5-8", content[5:9], http.StatusAccepted, "0-8"},
	} {
		resp, _ := do(t, s, http.MethodPatch, location, c.body, "Content-Range", c.extent)
		if resp.StatusCode != c.status || resp.Header.Get("Range") != c.now {
			t.Errorf("PATCH %s: status %d, Range %s; want %d, %s", c.extent, resp.StatusCode, resp.Header.Get("Range"), c.status, c.now)
		}
	}
	if resp, _ := do(t, s, http.MethodGet, location, nil); resp.StatusCode != http.StatusNoContent || resp.Header.Get("Range") != "0-8" {
		t.Errorf("GET of the session: status %d, Range %s", resp.StatusCode, resp.Header.Get("Range"))
	}
	if resp, _ := do(t, s, http.MethodPut, location+"?digest="+d.String(), content[9:]); resp.StatusCode != http.StatusCreated {
		t.Errorf("PUT: status %d", resp.StatusCode)
	}
	resp, b := do(t, s, http.MethodGet, "/v2/a/b/blobs/"+d.String(), nil, "Range", "bytes=7-11")
	if resp.StatusCode != http.StatusPartialContent || string(b) != "world" {
		t.Errorf("range: status %d, %q", resp.StatusCode, b)
	}
	if got, want := s.Traffic(d), (ociserver.Traffic{Requests: 1, Bytes: 5}); got != want {
		t.Errorf("Traffic = %+v, want %+v", got, want)
	}
}

func TestDirectoryKeepsContent(t *testing.T) {
	dir := t.TempDir()
	content := []byte("weights")
	d := digest.FromBytes(content)
	manifest := []byte(`{"schemaVersion":2,"layers":[]}`)
	for round := range 2 {
		s, err := ociserver.NewDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			do(t, s, http.MethodPost, "/v2/a/b/blobs/uploads/?digest="+d.String(), content)
			do(t, s, http.MethodPut, "/v2/a/b/manifests/v1", manifest, "Content-Type", "application/vnd.oci.image.manifest.v1+json")
		}
		if _, b := do(t, s, http.MethodGet, "/v2/a/b/blobs/"+d.String(), nil); !bytes.Equal(b, content) {
			t.Errorf("round %d: blob is %q", round, b)
		}
		resp, b := do(t, s, http.MethodGet, "/v2/a/b/manifests/v1", nil)
		if !bytes.Equal(b, manifest) || resp.Header.Get("Content-Type") != "application/vnd.oci.image.manifest.v1+json" {
			t.Errorf("round %d: manifest is %q of type %s", round, b, resp.Header.Get("Content-Type"))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNamesStayInsideTheStore(t *testing.T) {
	s, err := ociserver.NewDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, path := range []string{
		"/v2/a/../b/manifests/v1", "/v2/_uploads/manifests/v1", "/v2/A/manifests/v1", "/v2/a/manifests/..",
		"/v2/a/manifests/sha256:..%2f..", "/v2/a/blobs/sha256:zz", "/v2/a//b/tags/list", "/v2//manifests/v1",
	} {
		if resp, _ := do(t, s, http.MethodGet, path, nil); resp.StatusCode < 400 {
			t.Errorf("GET %s: status %d", path, resp.StatusCode)
		}
	}
	if resp, _ := do(t, s, http.MethodPut, "/v2/a/manifests/v1", []byte(strings.Repeat(" ", 5<<20))); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("manifest of 5 MiB: status %d", resp.StatusCode)
	}
}
