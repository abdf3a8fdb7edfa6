// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// within returns a repository behind h without a network, for use in a
// synctest bubble.
func within(t *testing.T, h http.Handler) registry.WriteStore {
	c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{"example.com": {Transport: inProcess{h}}}}
	return open(t, c, "example.com/team/model")
}

func TestRetriesHonourRetryAfter(t *testing.T) {
	for _, c := range []struct {
		value    string
		min, max time.Duration
	}{
		{"7", 7 * time.Second, 8 * time.Second},
		{"3600", 60 * time.Second, 61 * time.Second},
		{"1000000000", 60 * time.Second, 61 * time.Second},
		{"", 0, time.Second},
		{"-5", 0, time.Second},
		{"soon", 0, time.Second},
	} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout} {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				server := ociserver.New()
				server.Fault = func(r *http.Request) *ociserver.Fault {
					if requests++; requests > 1 {
						return nil
					}
					return &ociserver.Fault{Status: status, Header: http.Header{"Retry-After": {c.value}}}
				}
				start := time.Now()
				_, err := within(t, server).Resolve(t.Context(), "v1")
				if took := time.Since(start); !errors.Is(err, registry.ErrNotFound) || took < c.min || took > c.max {
					t.Errorf("status %d, Retry-After %q: %v after %v, want ErrNotFound after %v to %v", status, c.value, err, took, c.min, c.max)
				}
			})
		}
	}
}

func TestRetriesAreBounded(t *testing.T) {
	for status, want := range map[int]int{
		http.StatusServiceUnavailable:  registry.MaxAttempts,
		http.StatusTooManyRequests:     registry.MaxAttempts,
		http.StatusInternalServerError: registry.MaxAttempts,
		http.StatusNotFound:            1,
		http.StatusForbidden:           1,
		http.StatusBadRequest:          1,
		http.StatusNotImplemented:      1,
		http.StatusTeapot:              1,
	} {
		synctest.Test(t, func(t *testing.T) {
			requests := 0
			s := within(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.WriteHeader(status)
			}))
			start := time.Now()
			_, err := s.Resolve(t.Context(), "v1")
			var e *registry.Error
			if !errors.As(err, &e) || e.Status != status || e.Temporary() != (want > 1) {
				t.Errorf("status %d: got error %v, temporary %v", status, err, e.Temporary())
			}
			if took := time.Since(start); requests != want || took > time.Minute {
				t.Errorf("status %d: %d requests in %v, want %d", status, requests, took, want)
			}
		})
	}
}

func TestRetriesEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := within(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "50")
			w.WriteHeader(http.StatusServiceUnavailable)
		}))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		_, err := s.Resolve(ctx, "v1")
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != 5*time.Second {
			t.Errorf("got error %v after %v, want DeadlineExceeded after 5s", err, took)
		}
	})
}

func TestRetriesBrokenConnectionsBeforeTheFirstByte(t *testing.T) {
	server := ociserver.New()
	s := remote(t, server)
	d := pushBlob(t, s, pattern(1000))
	m := pushManifest(t, s, "retry", nil)
	var requests atomic.Int32 // a connection that ends orders nothing
	server.Fault = func(*http.Request) *ociserver.Fault {
		if requests.Add(1)%2 == 1 {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	if _, err := read(t, s, d, 10, 100); err != nil {
		t.Errorf("Fetch: %v", err)
	}
	if _, err := s.Resolve(t.Context(), m.Digest.String()); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	if err := s.Tag(t.Context(), m, "v1"); err != nil {
		t.Errorf("Tag: %v", err)
	}
}

// docker-registry 2.8 refuses the digest of a manifest when a blob that it names
// is being pushed by somebody else; what broke it on the way passes as well.
func TestManifestRefusedForItsDigestIsSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		code           string
		refusals, want int // requests that are refused, and all
	}{
		"passes":         {"DIGEST_INVALID", 2, 3},
		"does not pass":  {"DIGEST_INVALID", 100, registry.MaxAttempts},
		"another reason": {"MANIFEST_INVALID", 100, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				requests := 0
				server := ociserver.New()
				server.Fault = func(*http.Request) *ociserver.Fault {
					if requests++; requests > c.refusals {
						return nil
					}
					return &ociserver.Fault{Status: http.StatusBadRequest, Body: []byte(`{"errors":[{"code":"` + c.code + `"}]}`)}
				}
				_, err := within(t, server).PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifestOf(t, "refused", nil))
				var e *registry.Error
				if passes := c.refusals < c.want; passes != (err == nil) || !passes && (!errors.As(err, &e) || e.Status != http.StatusBadRequest) {
					t.Errorf("got error %v", err)
				}
				if requests != c.want {
					t.Errorf("%d requests, want %d", requests, c.want)
				}
			})
		})
	}
}

func TestManifestIsNotSentAgainAfterTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		server := ociserver.New()
		server.Fault = func(*http.Request) *ociserver.Fault {
			time.AfterFunc(time.Millisecond, cancel)
			return &ociserver.Fault{Status: http.StatusBadRequest, Body: []byte(`{"errors":[{"code":"DIGEST_INVALID"}]}`)}
		}
		_, err := within(t, server).PushManifest(ctx, ocispec.MediaTypeImageManifest, manifestOf(t, "refused", nil))
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want Canceled", err)
		}
	})
}

func TestDeadHostIsTemporaryAndBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	s := open(t, &registry.Client{Credentials: anonymous}, host+"/team/model")
	_, err = s.Resolve(t.Context(), "v1")
	var e *registry.Error
	if !errors.As(err, &e) || !e.Temporary() || e.Host != host {
		t.Errorf("got %v, want a temporary *Error that names the host", err)
	}
}

// A certificate that nobody trusts is final: no retry, no plain HTTP.
func TestUntrustedCertificateIsFinal(t *testing.T) {
	r := &recorder{Handler: ociserver.New()}
	server := httptest.NewUnstartedServer(r)
	connections := 0
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections++
		}
	}
	server.Config.ErrorLog = quiet
	server.StartTLS()
	host := strings.TrimPrefix(server.URL, "https://")
	c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{host: {TLS: new(tls.Config)}}}
	_, err := open(t, c, host+"/team/model").Resolve(t.Context(), "v1")
	server.Close()
	var e *registry.Error
	var verification *tls.CertificateVerificationError
	if !errors.As(err, &verification) || !errors.As(err, &e) || e.Temporary() {
		t.Errorf("got error %v, want a lasting certificate error", err)
	}
	if connections != 1 || len(r.take()) != 0 {
		t.Errorf("%d connections, want 1 and no request", connections)
	}
}

func TestStallsAreReported(t *testing.T) {
	d := ocispec.Descriptor{Digest: digest.FromBytes(pattern(1 << 20)), Size: 1 << 20}
	for name, c := range map[string]struct {
		reply func(w http.ResponseWriter, r *http.Request)
		max   time.Duration
	}{
		"no head": {func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, registry.MaxAttempts * (registry.StallTimeout + 10*time.Second)},
		"no body": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusOK)
			<-r.Context().Done()
		}, registry.StallTimeout},
		"half a body": {func(w http.ResponseWriter, r *http.Request) {
			w.Write(pattern(1 << 19))
			<-r.Context().Done()
		}, registry.StallTimeout},
		"a byte a second": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				time.Sleep(time.Second)
				w.Write([]byte("x"))
			}
		}, registry.StallTimeout + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := within(t, http.HandlerFunc(c.reply))
				start := time.Now()
				_, err := read(t, s, d, 0, d.Size)
				var e *registry.Error
				if !errors.Is(err, registry.ErrStalled) || !errors.As(err, &e) || !e.Temporary() {
					t.Errorf("got error %v, want a temporary ErrStalled", err)
				}
				if took := time.Since(start); took < registry.StallTimeout || took > c.max {
					t.Errorf("reported after %v, want %v to %v", took, registry.StallTimeout, c.max)
				}
				time.Sleep(time.Second) // the server may be about to send its next byte
			})
		})
	}
}

func TestSlowCallersDoNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := pattern(100_000)
		s := within(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }))
		body, err := s.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromBytes(b), Size: 100_000}, 0, 100_000)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		for range 10 {
			time.Sleep(2 * registry.StallTimeout)
			if _, err := io.ReadFull(body, make([]byte, 10_000)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := body.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("at the end: got error %v, want io.EOF", err)
		}
	})
}

func TestStalledUploadIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ociserver.New()
		s := within(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPatch {
				io.CopyN(io.Discard, r.Body, 1000)
				<-r.Context().Done()
				return
			}
			server.ServeHTTP(w, r)
		}))
		w, err := s.Create(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		start := time.Now()
		if _, err := w.Write(pattern(100_000)); !errors.Is(err, registry.ErrStalled) || time.Since(start) > 2*registry.StallTimeout {
			t.Errorf("got error %v after %v, want ErrStalled", err, time.Since(start))
		}
	})
}
