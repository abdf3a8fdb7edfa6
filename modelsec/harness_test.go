// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const (
	repository = "registry.example.com/team/llama"
	tagged     = repository + ":v3"
	segment    = 64 << 10
)

// now is the clock of tests that need one.
var now = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

// must ends the test where a step that prepares it fails.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// noise returns n bytes that follow from seed and do not compress.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	src.Read(b)
	return b
}

// source makes a model of the files named, each with its size.
func source(files map[string]int) fstest.MapFS {
	src := make(fstest.MapFS)
	for name, size := range files {
		src[name] = &fstest.MapFile{Data: noise(uint64(len(name)*1000+size), size), ModTime: now}
	}
	return src
}

// small is a model of three files and less than one segment.
func small() fstest.MapFS {
	return source(map[string]int{"model.safetensors": 700, "config.json": 60, "tokenizer/vocab.txt": 90})
}

// large is a model of many segments and a short last one.
func large() fstest.MapFS {
	return source(map[string]int{"model.safetensors": 20*segment + 12345, "other.safetensors": 3 * segment, "config.json": 300})
}

func push(t testing.TB, c *modelsec.Client, ref string, src fs.FS, o *modelsec.PushOptions) ocispec.Descriptor {
	t.Helper()
	d, err := c.Push(t.Context(), ref, src, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pinned is the reference by digest.
func pinned(d ocispec.Descriptor) string { return repository + "@" + string(d.Digest) }

// sameFiles fails where dir does not hold exactly the files of src.
func sameFiles(t testing.TB, dir string, src fstest.MapFS) {
	t.Helper()
	seen := 0
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		seen++
		got, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		if want, ok := src[p]; !ok || !bytes.Equal(got, want.Data) {
			t.Errorf("file %q differs from its source", p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen != len(src) {
		t.Errorf("%d files were pulled, want %d", seen, len(src))
	}
}

// absent fails where something is visible at dir.
func absent(t testing.TB, dir string) {
	t.Helper()
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the destination is not absent: %v", err)
	}
}

// nothingIn fails where anything is left in a directory, staged files too.
func nothingIn(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left behind: %s", e.Name())
	}
}

// pullFails pulls, demands one of the errors and that nothing is visible, and
// returns the error.
func pullFails(t testing.TB, c *modelsec.Client, ref string, p provenance.Policy, want ...error) error {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	_, err := c.Pull(t.Context(), ref, dir, p, nil)
	refused(t, err, want...)
	absent(t, dir)
	return err
}

// errPolicy stands for a refusal by policy in lists of errors.
var errPolicy = errors.New("refused by policy")

func refused(t testing.TB, err error, want ...error) {
	t.Helper()
	if err == nil {
		t.Error("got no error")
		return
	}
	if !isOneOf(err, want...) {
		t.Errorf("got %v, want one of %q", err, want)
	}
	var e *modelsec.Error
	if !errors.As(err, &e) {
		t.Errorf("got %T, want a *modelsec.Error: %v", err, err)
	}
}

func isOneOf(err error, want ...error) bool {
	var policy *provenance.PolicyError
	for _, w := range want {
		if errors.Is(err, w) || w == errPolicy && errors.As(err, &policy) {
			return true
		}
	}
	return false
}

// contains fails where the error does not speak of each of the words.
func contains(t testing.TB, err error, words ...string) {
	t.Helper()
	for _, w := range words {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("got %v, want it to say %q", err, w)
		}
	}
}

// serve starts a registry and returns it with the reference of a repository.
func serve(t testing.TB, s *ociserver.Server) (ref string) {
	t.Helper()
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	return strings.TrimPrefix(h.URL, "http://") + "/team/llama"
}

// lastProgress is what the next operations of c report last.
func lastProgress(c *modelsec.Client) *modelsec.Progress {
	last := new(modelsec.Progress)
	c.Hooks.Progress = func(p modelsec.Progress) { *last = p }
	return last
}

// remote opens repositories of the servers that tests start.
func remote() *registry.Client {
	return &registry.Client{
		Credentials: func(context.Context, string) (registry.Credential, error) { return registry.Credential{}, nil },
	}
}

// release signs a release statement of the artifact.
func release(t testing.TB, p *party, d digest.Digest, r provenance.Release) *provenance.Bundle {
	t.Helper()
	st, err := provenance.NewRelease(r)
	if err != nil {
		t.Fatal(err)
	}
	return signed(t, p, d, st)
}

func signed(t testing.TB, p *party, d digest.Digest, st provenance.Statement) *provenance.Bundle {
	t.Helper()
	payload, err := st.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	b, err := p.signer.Sign(t.Context(), provenance.PayloadType, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// slsa is a statement of a build.
func slsa(t testing.TB) provenance.Statement {
	t.Helper()
	st, err := provenance.NewProvenance(provenance.Build{Parameters: provenance.Convert{To: "safetensors"}, Builder: "https://builders.example.com/local/v1"})
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// errTruncated is what a body that ends early becomes.
var errTruncated = io.ErrUnexpectedEOF

// inBubble runs a test on a clock of its own, so that pauses take no time.
func inBubble(t *testing.T, run func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, run)
}

// head and stride say where the segments of a layer lie.
func head(l ocispec.Descriptor) int64 {
	if l.MediaType == sealedType {
		return encrypt.HeaderSize
	}
	return 0
}

func stride(l ocispec.Descriptor) int64 {
	if l.MediaType == sealedType {
		return segment + encrypt.SegmentOverhead
	}
	return segment
}

func digestOf(b []byte) digest.Digest { return digest.FromBytes(b) }

// releaseOf returns the release statement of an artifact.
func releaseOf(t testing.TB, o registry.Opener, d ocispec.Descriptor) provenance.Release {
	t.Helper()
	s := openShelf(t, o, repository)
	for _, r := range s.referrers(d, provenance.BundleMediaType) {
		b, err := provenance.ParseBundle(s.read(s.manifest(r).Layers[0]))
		if err != nil {
			t.Fatal(err)
		}
		st, err := b.Statement()
		if err != nil {
			t.Fatal(err)
		}
		if r, err := provenance.ParseRelease(st); err == nil {
			return r
		}
	}
	t.Fatal("the artifact has no release")
	return provenance.Release{}
}

// settle waits, in a bubble, until everything else waits too.
func settle() { synctest.Wait() }

// untag is the repository of a reference that ends in a tag.
func untag(ref string) string { return ref[:strings.LastIndexByte(ref, ':')] }

// provenanceGrant is the statement that vouches for a grant document.
func provenanceGrant(document []byte) (provenance.Statement, error) {
	return provenance.NewGrant(digestOf(document))
}

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }
