// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// redirecting sends GET requests for blobs to where to says, and demands a
// password for everything.
func redirecting(server http.Handler, to func(r *http.Request) string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != secret {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, to(r), http.StatusTemporaryRedirect)
			return
		}
		server.ServeHTTP(w, r)
	})
}

func TestRedirectDropsCredentials(t *testing.T) {
	server := ociserver.New()
	store := &recorder{Handler: server}
	storeHost := serve(t, store)
	h := redirecting(server, func(r *http.Request) string { return "http://" + storeHost + r.URL.Path + "?signature=s3cret" })
	host := serve(t, h)
	s := open(t, &registry.Client{Credentials: withPassword}, host+"/team/model")
	b := pattern(1000)
	d := pushBlob(t, s, b)
	for range 2 {
		got, err := read(t, s, d, 100, 200)
		if err != nil || string(got) != string(b[100:300]) {
			t.Errorf("redirected range: %d bytes, %v", len(got), err)
		}
	}
	for _, req := range store.take() {
		if req.Header.Get("Authorization") != "" || req.Header.Get("Referer") != "" {
			t.Errorf("Authorization %q, Referer %q reached another origin", req.Header.Get("Authorization"), req.Header.Get("Referer"))
		}
		if req.Header.Get("Range") != "bytes=100-299" {
			t.Errorf("Range is %q", req.Header.Get("Range"))
		}
	}
}

// What the object store asks for is no reason to show it a credential.
func TestChallengeOfAnotherOriginIsNotAnswered(t *testing.T) {
	store := &recorder{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	})}
	storeHost := serve(t, store)
	host := serve(t, redirecting(ociserver.New(), func(*http.Request) string { return "http://" + storeHost + "/x" }))
	s := open(t, &registry.Client{Credentials: withPassword}, host+"/team/model")
	d := pushBlob(t, s, pattern(10))
	if _, err := read(t, s, d, 0, 10); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("got error %v, want ErrUnauthorized", err)
	}
	for _, req := range store.take() {
		if req.Header.Get("Authorization") != "" {
			t.Error("Authorization reached another origin")
		}
	}
}

func TestExpiredRedirectIsAskedForAgain(t *testing.T) {
	server := ociserver.New()
	denied := 0
	storeHost := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if denied++; denied == 1 {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		server.ServeHTTP(w, r)
	}))
	host := serve(t, redirecting(server, func(r *http.Request) string { return "http://" + storeHost + r.URL.Path }))
	s := open(t, &registry.Client{Credentials: withPassword}, host+"/team/model")
	d := pushBlob(t, s, pattern(10))
	if _, err := read(t, s, d, 0, 10); err != nil {
		t.Error(err)
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	hops := 0
	server := ociserver.New()
	s := open(t, &registry.Client{Credentials: withPassword}, serve(t, redirecting(server, func(r *http.Request) string {
		hops++
		return r.URL.Path
	}))+"/team/model")
	d := pushBlob(t, s, pattern(10))
	if _, err := read(t, s, d, 0, 10); err == nil || hops != registry.MaxRedirects+1 {
		t.Errorf("got error %v after %d redirects, want one after %d", err, hops, registry.MaxRedirects+1)
	}
}

func TestRedirectToOtherNetworksAndSchemesIsRefused(t *testing.T) {
	for _, to := range []string{"http://169.254.169.254/latest/meta-data?key=s3cret", "http://[fe80::1]/x", "http://0.0.0.0:1/", "ftp://example.com/x", "file:///etc/passwd"} {
		r := &recorder{Handler: redirecting(ociserver.New(), func(*http.Request) string { return to })}
		s := open(t, &registry.Client{Credentials: withPassword}, serve(t, r)+"/team/model")
		d := pushBlob(t, s, pattern(10))
		r.take()
		_, err := read(t, s, d, 0, 10)
		var e *registry.Error
		if !errors.As(err, &e) || e.Temporary() {
			t.Errorf("%s: got error %v, want a lasting one", to, err)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error shows the query: %v", err)
		}
		if n := len(r.take()); n > 1 {
			t.Errorf("%s: tried %d times", to, n)
		}
	}
}

func TestRedirectNeverLeavesTLS(t *testing.T) {
	plain := &recorder{Handler: ociserver.New()}
	plainHost := serve(t, plain)
	server := httptest.NewTLSServer(redirecting(ociserver.New(), func(r *http.Request) string { return "http://" + plainHost + r.URL.Path }))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	host := strings.TrimPrefix(server.URL, "https://")
	c := &registry.Client{Credentials: withPassword, Hosts: map[string]registry.Host{host: {TLS: &tls.Config{RootCAs: roots}}}}
	s := open(t, c, host+"/team/model")
	d := pushBlob(t, s, pattern(10))
	if _, err := read(t, s, d, 0, 10); err == nil {
		t.Error("followed from https to http")
	}
	if n := len(plain.take()); n != 0 {
		t.Errorf("%d requests in the clear", n)
	}
}

func TestUploadRefusesForeignLocation(t *testing.T) {
	trap := &recorder{Handler: http.NotFoundHandler()}
	trapHost := serve(t, trap)
	for _, method := range []string{http.MethodPost, http.MethodPatch} {
		for _, location := range []string{"http://" + trapHost + "/upload", "//" + trapHost + "/upload", "https://%s/upload", "http://user@%s/upload", "", "http://[/"} {
			var fault *ociserver.Fault
			host := serve(t, faulty(method, "/uploads/", &fault))
			if strings.Contains(location, "%s") {
				location = fmt.Sprintf(location, host)
			}
			fault = &ociserver.Fault{Header: http.Header{"Location": {location}}}
			if location == "" {
				fault.Header["Location"] = nil
			}
			s := open(t, &registry.Client{Credentials: withPassword}, host+"/team/model")
			w, err := s.Create(t.Context(), -1)
			if err == nil {
				if _, err = w.Write(pattern(10)); err == nil {
					err = w.Commit(t.Context(), someDigest)
				}
				w.Close()
			}
			if !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("%s, Location %q: got error %v, want ErrInvalid", method, location, err)
			}
		}
	}
	if n := len(trap.take()); n != 0 {
		t.Errorf("%d requests to another origin", n)
	}
}

func TestUploadIsNotRedirected(t *testing.T) {
	trap := &recorder{Handler: http.NotFoundHandler()}
	trapHost := serve(t, trap)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		for _, method := range []string{http.MethodPost, http.MethodPatch, http.MethodPut} {
			var fault *ociserver.Fault
			s := remote(t, faulty(method, "/v2/", &fault))
			fault = &ociserver.Fault{Status: status, Header: http.Header{"Location": {"http://" + trapHost + "/x"}}}
			w, err := s.Create(t.Context(), -1)
			if err == nil {
				if _, err = w.Write(pattern(10)); err == nil {
					err = w.Commit(t.Context(), someDigest)
				}
				w.Close()
			}
			if err == nil {
				t.Errorf("%s with status %d: no error", method, status)
			}
		}
	}
	if n := len(trap.take()); n != 0 {
		t.Errorf("%d requests to another origin", n)
	}
}
