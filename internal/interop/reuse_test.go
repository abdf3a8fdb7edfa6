// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// counted counts the bytes of the bodies that are sent to a server.
func counted(t *testing.T, s server) (host string, sent *atomic.Int64) {
	t.Helper()
	sent = new(atomic.Int64)
	to := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: s.host})
		r.Out.Host = r.In.Host
	}}
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = &countedBody{r.Body, sent}
		to.ServeHTTP(w, r)
	})).host, sent
}

type countedBody struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.bytes.Add(int64(n))
	return n, err
}

// TestReusedLayersAreNotSentToRealRegistries again, within a repository or
// mounted from another: only what changed is, with the evidence.
func TestReusedLayersAreNotSentToRealRegistries(t *testing.T) {
	p, dir := newParty(t), smallModel(t)
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			host, sent := counted(t, s.start(t))
			first := host + "/team/model:v1"
			o := p.options(t)
			o.Name = "team/model"
			if _, err := p.client().Push(t.Context(), first, os.DirFS(dir), o); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type":"`+s.name+`"}`), 0o644); err != nil {
				t.Fatal(err)
			}
			o.Reuse = first
			for _, ref := range []string{host + "/team/model:v2", host + "/tuned/model:v1"} {
				before := sent.Load()
				if _, err := p.client().Push(t.Context(), ref, os.DirFS(dir), o); err != nil {
					t.Fatal(err)
				}
				if n := sent.Load() - before; n > 64<<10 {
					t.Errorf("%d bytes were sent for %s, where only config.json changed", n, ref)
				}
				out := filepath.Join(t.TempDir(), "model")
				if _, err := p.client().Pull(t.Context(), ref, out, p.policy.For(first[:len(first)-len(":v1")]), nil); err != nil {
					t.Fatal(err)
				}
				sameTree(t, out, dir)
			}
		})
	}
}
