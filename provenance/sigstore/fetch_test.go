// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

// repository is a TUF repository of one key.
type repository struct {
	root  []byte
	files map[string][]byte
	// asked counts the requests.
	asked int
}

func newRepository(t *testing.T, expires time.Time, targets map[string][]byte) *repository {
	t.Helper()
	pub, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer := must(signature.LoadSigner(private, crypto.Hash(0)))
	key := must(metadata.KeyFromPublicKey(pub))
	root := metadata.Root(expires)
	for _, role := range []string{metadata.ROOT, metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS} {
		if err := root.Signed.AddKey(key, role); err != nil {
			t.Fatal(err)
		}
	}
	listed := metadata.Targets(expires)
	r := &repository{files: make(map[string][]byte)}
	for name, content := range targets {
		file := must((&metadata.TargetFiles{}).FromBytes(name, content))
		listed.Signed.Targets[name] = file
		r.files["/targets/"+file.Hashes["sha256"].String()+"."+name] = content
	}
	timestamp, snapshot := metadata.Timestamp(expires), metadata.Snapshot(expires)
	for name, sign := range map[string]func() ([]byte, error){
		"1.root.json":     func() ([]byte, error) { must(root.Sign(signer)); return root.ToBytes(false) },
		"timestamp.json":  func() ([]byte, error) { must(timestamp.Sign(signer)); return timestamp.ToBytes(false) },
		"1.snapshot.json": func() ([]byte, error) { must(snapshot.Sign(signer)); return snapshot.ToBytes(false) },
		"1.targets.json":  func() ([]byte, error) { must(listed.Sign(signer)); return listed.ToBytes(false) },
	} {
		r.files["/"+name] = must(sign())
	}
	r.root = r.files["/1.root.json"]
	return r
}

func (r *repository) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.asked++
	if b, ok := r.files[req.URL.Path]; ok {
		_, _ = w.Write(b)
		return
	}
	http.NotFound(w, req)
}

func (r *repository) fetch(t *testing.T) (root, config []byte, err error) {
	s := httptest.NewServer(r)
	defer s.Close()
	return sigstore.Fetch(t.Context(), &sigstore.FetchOptions{Repository: s.URL, Root: r.root})
}

var fetched = map[string][]byte{"trusted_root.json": []byte("the root"), "signing_config.v0.2.json": []byte("the configuration")}

func TestFetchGetsBothDocuments(t *testing.T) {
	root, config, err := newRepository(t, time.Now().Add(time.Hour), fetched).fetch(t)
	if err != nil || string(root) != "the root" || string(config) != "the configuration" {
		t.Errorf("got %q, %q, %v", root, config, err)
	}
	root, config, err = newRepository(t, time.Now().Add(time.Hour), map[string][]byte{"trusted_root.json": []byte("the root")}).fetch(t)
	if err != nil || string(root) != "the root" || config != nil {
		t.Errorf("without a configuration: got %q, %q, %v", root, config, err)
	}
}

// TestFetchRefuses what TUF is there for (FAULTS 45).
func TestFetchRefuses(t *testing.T) {
	soon := time.Now().Add(time.Hour)
	for what, r := range map[string]*repository{
		"expired metadata": newRepository(t, time.Now().Add(-time.Minute), fetched),
		"no trusted root":  newRepository(t, soon, map[string][]byte{"signing_config.v0.2.json": []byte("x")}),
		"a large root":     newRepository(t, soon, map[string][]byte{"trusted_root.json": make([]byte, 2<<20)}),
		"another's root": func() *repository {
			r := newRepository(t, soon, fetched)
			r.root = newRepository(t, soon, fetched).root
			return r
		}(),
		"another file": func() *repository {
			r := newRepository(t, soon, fetched)
			for name, b := range r.files {
				if strings.HasSuffix(name, ".trusted_root.json") {
					r.files[name] = bytes.ToUpper(b)
				}
			}
			return r
		}(),
		"a file without end": func() *repository {
			r := newRepository(t, soon, fetched)
			r.files["/timestamp.json"] = make([]byte, 8<<20)
			return r
		}(),
	} {
		if root, _, err := r.fetch(t); err == nil {
			t.Errorf("%s: got %q", what, root)
		}
	}
	for _, o := range []*sigstore.FetchOptions{{Repository: "https://tuf.example.com"}, {Root: []byte("{}")}} {
		if _, _, err := sigstore.Fetch(t.Context(), o); err == nil {
			t.Errorf("%+v: accepted", o)
		}
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	r := newRepository(t, time.Now().Add(time.Hour), fetched)
	s := httptest.NewServer(r)
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := sigstore.Fetch(ctx, &sigstore.FetchOptions{Repository: s.URL, Root: r.root}); !errors.Is(err, context.Canceled) || r.asked > 0 {
		t.Errorf("got %v after %d requests", err, r.asked)
	}
}
