// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

// BenchmarkFetch reads 8 MiB ranges over one connection of plain HTTP, with
// the server in the same process.
func BenchmarkFetch(b *testing.B) {
	content := pattern(8 << 20)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-8388607/8388608000")
		w.Header().Set("Content-Length", "8388608")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(content)
	}))
	defer server.Close()
	s, err := (&registry.Client{Credentials: anonymous}).Open(b.Context(), strings.TrimPrefix(server.URL, "http://")+"/team/model")
	if err != nil {
		b.Fatal(err)
	}
	d := ocispec.Descriptor{Digest: digest.FromString("bench"), Size: 1000 * int64(len(content))}
	buf := make([]byte, 1<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		body, err := s.Fetch(b.Context(), d, 0, int64(len(content)))
		if err != nil {
			b.Fatal(err)
		}
		for {
			if _, err := body.Read(buf); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		body.Close()
	}
}
