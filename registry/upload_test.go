// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// shape is what a registry sees of an upload request.
func shape(r *http.Request) string {
	s := r.Method
	switch {
	case r.ContentLength >= 0:
		s += fmt.Sprintf(" length=%d", r.ContentLength)
	default:
		s += " streamed"
	}
	if r.Header.Get("Content-Range") != "" {
		s += " Content-Range"
	}
	if r.URL.Query().Has("digest") {
		s += " digest"
	}
	return s
}

func TestUploadIsOneStreamingPatch(t *testing.T) {
	r := &recorder{Handler: ociserver.New()}
	s := remote(t, r)
	shapes := func() (got []string) {
		for _, req := range r.take() {
			got = append(got, shape(req))
		}
		return got
	}
	w, err := s.Create(t.Context(), -1)
	if err != nil {
		t.Fatal(err)
	}
	b := pattern(1 << 20)
	for piece := range slices.Chunk(b, 100_000) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(t.Context(), digest.FromBytes(b)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got, want := shapes(), []string{"POST length=0", "PATCH streamed", "PUT length=0 digest"}; !slices.Equal(got, want) {
		t.Errorf("blob: got %q, want %q", got, want)
	}
	pushBlob(t, s, nil)
	if got, want := shapes(), []string{"POST length=0", "PUT length=0 digest"}; !slices.Equal(got, want) {
		t.Errorf("empty blob: got %q, want %q", got, want)
	}
	w, err = s.Create(t.Context(), -1)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if got, want := shapes(), []string{"POST length=0", "DELETE length=0"}; !slices.Equal(got, want) {
		t.Errorf("abandoned blob: got %q, want %q", got, want)
	}
}

func TestUploadKeepsStateInTheLocation(t *testing.T) {
	// Some registries carry the state of a session in the query, and change it
	// with every reply.
	server := ociserver.New()
	step := 0
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/uploads/") {
			if want := fmt.Sprint(step); step > 0 && r.URL.Query().Get("state") != want {
				http.Error(w, "stale", http.StatusBadRequest)
				return
			}
			step++
			w = &locationWriter{w, fmt.Sprintf("?state=%d", step)}
		}
		server.ServeHTTP(w, r)
	}))
	pushBlob(t, s, pattern(1000))
}

type locationWriter struct {
	http.ResponseWriter
	query string
}

func (l *locationWriter) WriteHeader(status int) {
	l.Header().Set("Location", l.Header().Get("Location")+l.query)
	l.ResponseWriter.WriteHeader(status)
}

// upload pushes b piece by piece and returns the first error.
func upload(t *testing.T, s registry.WriteStore, b []byte) error {
	t.Helper()
	w, err := s.Create(t.Context(), -1)
	if err != nil {
		return err
	}
	defer w.Close()
	for piece := range slices.Chunk(b, 64<<10) {
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	return w.Commit(t.Context(), digest.FromBytes(b))
}

func TestUploadReportsRefusals(t *testing.T) {
	body := []byte(`{"errors":[{"code":"DENIED","message":"quota \u001b[31mof team"}]}`)
	for _, c := range []struct {
		method string
		status int
		want   error
	}{
		{http.MethodPost, http.StatusForbidden, registry.ErrUnauthorized},
		{http.MethodPatch, http.StatusUnauthorized, registry.ErrUnauthorized},
		{http.MethodPatch, http.StatusRequestEntityTooLarge, registry.ErrLimit},
		{http.MethodPatch, http.StatusMethodNotAllowed, registry.ErrUnsupported},
		{http.MethodPut, http.StatusNotFound, registry.ErrNotFound},
		{http.MethodPut, http.StatusInternalServerError, nil},
		{http.MethodPut, http.StatusAccepted, nil},
		{http.MethodPut, http.StatusOK, nil},
	} {
		var fault *ociserver.Fault
		s := remote(t, faulty(c.method, "/uploads/", &fault))
		fault = &ociserver.Fault{Status: c.status, Body: body}
		err := upload(t, s, pattern(8<<20))
		var e *registry.Error
		if !errors.As(err, &e) || e.Status != c.status || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s answered with %d: got error %v, want %v", c.method, c.status, err, c.want)
			continue
		}
		if strings.ContainsRune(err.Error(), 0x1b) || !strings.Contains(err.Error(), "quota") {
			t.Errorf("message of the registry is shown as %q", err)
		}
	}
}

func TestUploadNoticesLostBytes(t *testing.T) {
	fault := &ociserver.Fault{Header: http.Header{"Range": {"0-9"}}}
	if err := upload(t, remote(t, faulty(http.MethodPatch, "/uploads/", &fault)), pattern(1000)); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("PATCH that kept ten bytes: got error %v, want ErrInvalid", err)
	}
	fault = &ociserver.Fault{Header: http.Header{"Docker-Content-Digest": {digest.FromString("other").String()}}}
	if err := upload(t, remote(t, faulty(http.MethodPut, "/uploads/", &fault)), pattern(1000)); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("201 with another digest: got error %v, want ErrInvalid", err)
	}
	s := remote(t, faulty(http.MethodPut, "/manifests/", &fault))
	if _, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifestOf(t, "", nil)); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("manifest under another digest: got error %v, want ErrInvalid", err)
	}
}

func TestUploadCutMidwayFailsAndCanBeRestarted(t *testing.T) {
	server := ociserver.New()
	var patches atomic.Int32 // a connection that ends orders nothing
	s := remote(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			if patches.Add(1) < 3 {
				io.CopyN(io.Discard, r.Body, 100_000)
				panic(http.ErrAbortHandler)
			}
		}
		server.ServeHTTP(w, r)
	}))
	b := pattern(4 << 20)
	for range 2 {
		var e *registry.Error
		if err := upload(t, s, b); !errors.As(err, &e) || !e.Temporary() {
			t.Fatalf("got error %v, want a temporary one", err)
		}
	}
	if err := upload(t, s, b); err != nil {
		t.Fatal(err)
	}
}

func TestCommitIsNotRepeated(t *testing.T) {
	fault := &ociserver.Fault{Status: http.StatusServiceUnavailable}
	server := faulty(http.MethodPut, "/uploads/", &fault)
	r := &recorder{Handler: server}
	if err := upload(t, remote(t, r), pattern(10)); err == nil {
		t.Error("no error")
	}
	puts := 0
	for _, req := range r.take() {
		if req.Method == http.MethodPut {
			puts++
		}
	}
	if puts != 1 {
		t.Errorf("%d PUT requests, want 1", puts)
	}
}

func TestMountTakesBlobsOfTheSameHost(t *testing.T) {
	server := ociserver.New()
	r := &recorder{Handler: server}
	host := serve(t, r)
	c := &registry.Client{Credentials: anonymous}
	from, to := open(t, c, host+"/team/base"), open(t, c, host+"/team/tuned")
	d := pushBlob(t, from, pattern(1000))
	m := to.(registry.Mounter)
	if ok, err := m.Mount(t.Context(), d, "team/base"); !ok || err != nil {
		t.Errorf("Mount = %v, %v", ok, err)
	}
	if b, err := read(t, to, d, 0, d.Size); err != nil || len(b) != 1000 {
		t.Errorf("mounted blob: %d bytes, %v", len(b), err)
	}
	absent := d
	absent.Digest = digest.FromString("absent")
	r.take()
	if ok, err := m.Mount(t.Context(), absent, "team/base"); ok || err != nil {
		t.Errorf("Mount of an absent blob = %v, %v; want false", ok, err)
	}
	if requests := r.take(); len(requests) != 2 || requests[1].Method != http.MethodDelete {
		t.Errorf("the session that a refused mount began was not ended")
	}
	for _, bad := range []string{"", "../x", "a b", "x?y=z"} {
		if _, err := m.Mount(t.Context(), d, bad); err == nil {
			t.Errorf("Mount from %q succeeded", bad)
		}
	}
}

// Two stores that delete at the same time must not write to what they share.
func TestDeleteSharesTheActionsOfItsScope(t *testing.T) {
	want := []string{"pull", "push", "delete"}
	s := remote(t, ociserver.New())
	if err := s.Delete(t.Context(), pushBlob(t, s, pattern(10))); err != nil {
		t.Fatal(err)
	}
	if got := registry.DeleteScope(); !slices.Equal(got, want) {
		t.Errorf("the actions are %q, want %q", got, want)
	}
}

func TestDeleteWhereItIsDisabled(t *testing.T) {
	server := ociserver.New()
	server.NoDelete = true
	s := remote(t, server)
	b := pushBlob(t, s, pattern(10))
	m := pushManifest(t, s, "kept", nil)
	for _, d := range []ocispec.Descriptor{b, m} {
		if err := s.Delete(t.Context(), d); !errors.Is(err, registry.ErrUnsupported) {
			t.Errorf("%s: got error %v, want ErrUnsupported", d.MediaType, err)
		}
	}
	fault := &ociserver.Fault{Status: http.StatusNotFound}
	s = remote(t, faulty(http.MethodDelete, "/v2/", &fault))
	m = pushManifest(t, s, "kept", nil)
	if err := s.Delete(t.Context(), m); !errors.Is(err, registry.ErrUnsupported) {
		t.Errorf("404 for what is there: got error %v, want ErrUnsupported", err)
	}
}

func TestHasNoticesOtherSizes(t *testing.T) {
	s := remote(t, ociserver.New())
	d := pushBlob(t, s, pattern(10))
	d.Size = 11
	if ok, err := s.Has(t.Context(), d); ok || !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("Has = %v, %v; want ErrInvalid", ok, err)
	}
}
