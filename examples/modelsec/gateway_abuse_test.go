// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// TestGatewayLetsGoOfStrangers: whoever is refused keeps no connection, not
// even by a body that he announces and never sends.
func TestGatewayLetsGoOfStrangers(t *testing.T) {
	s := gatewayOf(t, "127.0.0.1:0")
	address, _ := strings.CutPrefix(s.base, "https://")
	for _, body := range []string{"", "Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"} {
		c, err := tls.Dial("tcp", address, s.client.Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		fmt.Fprintf(c, "GET /model/config.json HTTP/1.1\r\nHost: %s\r\n%s\r\n", address, body)
		answer, err := io.ReadAll(c)
		if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 403 ")) {
			t.Errorf("%q: %v after %q", body, err, answer)
		}
		c.Close()
	}
}

// TestGatewayServesNothingButFiles of the list, by their exact names, and one
// range of them.
func TestGatewayServesNothingButFiles(t *testing.T) {
	fronts(t, func(t *testing.T, s *served) {
		for _, path := range []string{"/model/./config.json", "/model//config.json", "//model/config.json", "/model/%2e%2e/model/config.json", "/model/tokenizer/../config.json", "/model/tokenizer", "/model/config.json/", "/model/config.json%00", "/MODEL/config.json", "/model/Config.json", "/model/%2Fetc%2Fpasswd"} {
			for _, method := range []string{"GET", "HEAD"} {
				if resp, b := s.do(method, path, nil); resp.StatusCode != http.StatusNotFound {
					t.Errorf("%s %s: status %d: %.100s", method, path, resp.StatusCode, b)
				}
			}
		}
		size := len(s.src["config.json"].Data)
		for r, want := range map[string]int{
			"bytes=0-0,2-3":                      http.StatusNotImplemented,
			fmt.Sprintf("bytes=%d-", size):       http.StatusRequestedRangeNotSatisfiable,
			"bytes=9-2":                          http.StatusRequestedRangeNotSatisfiable,
			"bytes=-":                            http.StatusRequestedRangeNotSatisfiable,
			"bytes=99999999999999999999-":        http.StatusRequestedRangeNotSatisfiable,
			"lines=1-2":                          http.StatusRequestedRangeNotSatisfiable,
			fmt.Sprintf("bytes=%d-", size-1):     http.StatusPartialContent,
			"bytes=0-9223372036854775807":        http.StatusPartialContent,
			fmt.Sprintf("bytes=-%d", 10*size):    http.StatusPartialContent,
			fmt.Sprintf("bytes=0-%d", 10*size-1): http.StatusPartialContent,
		} {
			for _, method := range []string{"GET", "HEAD"} {
				if resp, _ := s.do(method, "/model/config.json", func(req *http.Request) { req.Header.Set("Range", r) }); resp.StatusCode != want {
					t.Errorf("%s %s: status %d, want %d", method, r, resp.StatusCode, want)
				}
			}
		}
	})
}

// TestSettingsAreWhereTheyWereMade: nothing that was there before is used, and
// nothing that is not of this run is removed.
func TestSettingsAreWhereTheyWereMade(t *testing.T) {
	parent := t.TempDir()
	t.Chdir(parent)
	if err := os.Symlink(parent, "link"); err != nil {
		t.Skip(err)
	}
	for _, path := range []string{"link", parent, "a b", "$(id)", "a'b", "a\nb", filepath.Join("missing", "run")} {
		if _, err := newSettings(path); err == nil {
			t.Errorf("%q was accepted", path)
		}
	}
	s, err := newSettings("run")
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(s.file("env")) {
		t.Errorf("%s has a meaning in one directory only", s.file("env"))
	}
	// Somebody who can rename puts a directory of his own in its place.
	moved, err := filepath.Abs("moved")
	if err == nil {
		err = os.Rename("run", moved)
	}
	if err == nil {
		err = os.Mkdir("run", 0o777)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join("run", "ca.pem"), nil, 0o666)
	}
	if err == nil {
		err = s.write("ca.pem", []byte("x"))
	}
	if err == nil {
		err = s.writeEnv("https://127.0.0.1:1")
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join("run", "ca.pem")); err != nil || info.Size() != 0 {
		t.Errorf("a file of another was written: %v", err)
	}
	if err := s.remove(); err == nil {
		t.Error("a directory of another was removed")
	}
	if left, err := os.ReadDir(moved); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// countingStore counts the bytes that are fetched.
type countingStore struct {
	registry.Store
	bytes *atomic.Int64
}

func (s countingStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	s.bytes.Add(n)
	return s.Store.Fetch(ctx, d, off, n)
}

type countingOpener struct {
	registry.Opener
	bytes *atomic.Int64
}

func (o countingOpener) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := o.Opener.Open(ctx, name)
	return countingStore{s, o.bytes}, err
}

// TestGatewayFetchesWhatIsAskedForOnce, as loaders of weights ask: ranges of 8
// MiB from many connections. What a range has at its ends, of two segments, is
// the only excess.
func TestGatewayFetchesWhatIsAskedForOnce(t *testing.T) {
	key, signer := signingKey(t)
	content := make([]byte, 64<<20)
	for i := range content {
		content[i] = byte(i >> 13)
	}
	memory := registry.NewMemory()
	const ref, part, first = "registry.example.com/team/llama:v3", 8 << 20, 80
	if _, err := (&modelsec.Client{Registry: memory}).Push(t.Context(), ref, fstest.MapFS{"model.safetensors": &fstest.MapFile{Data: content}}, &modelsec.PushOptions{Signer: signer}); err != nil {
		t.Fatal(err)
	}
	var fetched atomic.Int64
	m, err := (&modelsec.Client{Registry: countingOpener{memory, &fetched}}).Open(t.Context(), ref, provenance.RequireKey(key.Public()))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	server := httptest.NewServer(newGateway(m, func(*http.Request) error { return nil }))
	defer server.Close()
	fetched.Store(0)
	var all sync.WaitGroup
	for at := first; at < len(content); at += part {
		all.Go(func() {
			r, err := http.NewRequest("GET", server.URL+"/model/model.safetensors", nil)
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", at, at+part-1))
			resp, err := server.Client().Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, content[at:min(at+part, len(content))]) {
				t.Errorf("the range at %d: %d bytes, %v", at, len(got), err)
			}
		})
	}
	all.Wait()
	if got, most := fetched.Load(), int64(len(content)+2*len(content)/part<<20); got > most {
		t.Errorf("fetched %d bytes of %d, want at most %d", got, len(content), most)
	}
}
