// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// shortLived guards a server with tokens that live five seconds.
type shortLived struct {
	next http.Handler

	mu     sync.Mutex
	issued int
	until  time.Time
}

func (s *shortLived) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	if r.URL.Path == "/token" {
		s.issued++
		s.until = time.Now().Add(5 * time.Second)
		fmt.Fprintf(w, `{"token":"t%d","expires_in":3600}`, s.issued)
		s.mu.Unlock()
		return
	}
	ok := r.Header.Get("Authorization") == fmt.Sprintf("Bearer t%d", s.issued) && time.Now().Before(s.until)
	s.mu.Unlock()
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://example.com/token",service="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.next.ServeHTTP(w, r)
}

// FAULTS 23: what the token service says about the life of a token is not
// relied upon, only the 401.
func TestTokenThatLivesFiveSecondsOutlastsThePull(t *testing.T) {
	for _, realms := range [][]string{nil, {"example.com"}} {
		synctest.Test(t, func(t *testing.T) {
			h := &shortLived{next: ociserver.New()}
			c := &registry.Client{Credentials: withPassword, Hosts: map[string]registry.Host{"example.com": {Transport: inProcess{h}, TrustedRealms: realms}}}
			s := open(t, c, "example.com/team/model")
			b := pattern(100_000)
			d := pushBlob(t, s, b)
			for off := int64(0); off < d.Size; off += 10_000 {
				body, err := s.Fetch(t.Context(), d, off, 10_000)
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(7 * time.Second) // A reply outlives its token.
				got, err := io.ReadAll(body)
				body.Close()
				if err != nil || !bytes.Equal(got, b[off:off+10_000]) {
					t.Fatalf("range at %d: %d bytes, %v", off, len(got), err)
				}
			}
			if h.issued > 12 {
				t.Errorf("%d tokens for 10 ranges", h.issued)
			}
		})
	}
}

func TestUploadOutlivesItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &shortLived{next: ociserver.New()}
		c := &registry.Client{Credentials: withPassword, Hosts: map[string]registry.Host{"example.com": {Transport: inProcess{h}}}}
		s := open(t, c, "example.com/team/model")
		w, err := s.Create(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		b := pattern(100_000)
		for off := 0; off < len(b); off += 10_000 {
			if _, err := w.Write(b[off : off+10_000]); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Second)
		}
		if err := w.Commit(t.Context(), digest.FromBytes(b)); err != nil {
			t.Fatal(err)
		}
	})
}

// FAULTS 23: addresses that the registry gave out are good for 300 seconds.
func TestExpiringAddressesAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := ociserver.New()
		early := 0
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Host == "store.example.net" {
				until, err := time.Parse(time.RFC3339, r.URL.Query().Get("until"))
				if err != nil || time.Now().After(until) {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				server.ServeHTTP(w, r)
				return
			}
			if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
				server.ServeHTTP(w, r)
				return
			}
			life := 300 * time.Second
			if early++; early%4 == 0 {
				life = -time.Second // A clock that is off, or a cached redirect.
			}
			w.Header().Set("Location", "https://store.example.net"+r.URL.Path+"?until="+time.Now().Add(life).UTC().Format(time.RFC3339))
			w.WriteHeader(http.StatusTemporaryRedirect)
		})
		c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{"example.com": {Transport: inProcess{h}}}}
		s := open(t, c, "example.com/team/model")
		b := pattern(100_000)
		d := pushBlob(t, s, b)
		for off := int64(0); off < d.Size; off += 10_000 {
			got, err := read(t, s, d, off, 10_000)
			if err != nil || !bytes.Equal(got, b[off:off+10_000]) {
				t.Fatalf("range at %d: %d bytes, %v", off, len(got), err)
			}
			time.Sleep(200 * time.Second)
		}
	})
}
