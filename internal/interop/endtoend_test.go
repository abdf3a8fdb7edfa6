// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// party is somebody with keys: to sign and to open.
type party struct {
	key      crypto.Signer
	policy   provenance.Policy
	signer   provenance.Signer
	identity *encrypt.HPKEIdentity
}

func newParty(t *testing.T) *party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p := &party{key: key, policy: provenance.RequireKey(key.Public(), provenance.PredicateRelease, provenance.PredicateSLSA)}
	if p.signer, err = provenance.KeySigner(key); err != nil {
		t.Fatal(err)
	}
	if p.identity, err = encrypt.GenerateIdentity(encrypt.DefaultType); err != nil {
		t.Fatal(err)
	}
	return p
}

// client returns a client of p that knows nothing yet.
func (p *party) client() *modelsec.Client {
	return &modelsec.Client{Registry: &registry.Client{Credentials: anonymous}, Identities: []encrypt.Identity{p.identity}}
}

// options are those of a push with every kind of evidence.
func (p *party) options(t *testing.T, to ...encrypt.Recipient) *modelsec.PushOptions {
	t.Helper()
	s, err := provenance.NewProvenance(provenance.Build{
		Parameters: provenance.Convert{From: "pytorch", To: "safetensors"}, Builder: "https://example.com/builder",
	})
	if err != nil {
		t.Fatal(err)
	}
	return &modelsec.PushOptions{Signer: p.signer, Statements: []provenance.Statement{s}, Recipients: to}
}

// noise returns n bytes that do not compress; equal arguments give equal bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// smallModel writes a model of many shapes: nested folders, files of several
// segments, none and equal bytes, names that need quoting somewhere.
func smallModel(t *testing.T) string {
	t.Helper()
	return writeModel(t, map[string][]byte{
		"model-00001-of-00002.safetensors": noise(5<<20 + 17),
		"model-00002-of-00002.safetensors": noise(1 << 20),
		"model.safetensors.index.json":     []byte(`{"weight_map":{}}`),
		"config.json":                      []byte(`{"model_type":"bert"}`),
		"tokenizer/vocab.txt":              noise(70_000),
		"tokenizer/équipe 100%.json":       []byte(`{"a&b":"<c>"}`),
		"onnx/deep/er/model.onnx":          noise(300_000),
		"onnx/deep/er/copy.onnx":           noise(300_000),
		"empty.txt":                        nil,
		"README.md":                        []byte("# A model\n"),
		"modeling.py":                      []byte("pass\n"),
	})
}

func writeModel(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tree returns the files below dir.
func tree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			t.Errorf("%s is no regular file", name)
		}
		files[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// sameTree compares two directories; files named in extra may be in the first.
func sameTree(t *testing.T, got, want string, extra ...string) {
	t.Helper()
	g, w := tree(t, got), tree(t, want)
	for _, name := range extra {
		delete(g, name)
	}
	if !maps.EqualFunc(g, w, bytes.Equal) {
		t.Errorf("got the files %q, want %q, or some differ", slices.Sorted(maps.Keys(g)), slices.Sorted(maps.Keys(w)))
	}
}

func TestPushVerifyPullAgainstServersOfOthers(t *testing.T) {
	for _, s := range servers {
		for _, encrypted := range []bool{true, false} {
			name := s.name + ", plain"
			if encrypted {
				name = s.name + ", encrypted"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				roundTrip(t, s.start(t).host+"/team/model:v1", encrypted)
			})
		}
	}
}

// roundTrip publishes a model under ref, and lets somebody else read it.
func roundTrip(t *testing.T, ref string, encrypted bool) {
	publisher, stranger, dir := newParty(t), newParty(t), smallModel(t)
	var to []encrypt.Recipient
	if encrypted {
		to = append(to, publisher.identity.Recipient())
	}
	d, err := publisher.client().Push(t.Context(), ref, os.DirFS(dir), publisher.options(t, to...))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publisher.client().VerifyDeep(t.Context(), ref, publisher.policy); err != nil {
		t.Errorf("VerifyDeep: %v", err)
	}
	pulled := filepath.Join(t.TempDir(), "model")
	report, err := publisher.client().Pull(t.Context(), ref, pulled, publisher.policy, nil)
	if err != nil {
		t.Fatalf("Pull: %v", err)
	}
	if report.Manifest != d.Digest {
		t.Errorf("Pull reports %s, Push returned %s", report.Manifest, d.Digest)
	}
	sameTree(t, pulled, dir)
	readsRandomly(t, publisher, ref, dir)

	refused := filepath.Join(t.TempDir(), "refused")
	_, err = stranger.client().Pull(t.Context(), ref, refused, stranger.policy, nil)
	if _, ok := errors.AsType[*provenance.PolicyError](err); !ok {
		t.Errorf("Pull under the policy of a stranger: got error %v, want a refusal", err)
	}
	if encrypted {
		if _, err = stranger.client().Open(t.Context(), ref, publisher.policy); !errors.Is(err, modelsec.ErrNoKey) {
			t.Errorf("Open without a grant: got error %v, want ErrNoKey", err)
		}
		grants(t, publisher, stranger, ref, dir)
	}
	if _, err := os.Lstat(refused); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a refused Pull left %s: %v", refused, err)
	}
}

// readsRandomly reads pieces of one file through Model.ReaderAt.
func readsRandomly(t *testing.T, p *party, ref, dir string) {
	t.Helper()
	const name = "model-00001-of-00002.safetensors"
	m, err := p.client().Open(t.Context(), ref, p.policy)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	r, err := m.ReaderAt(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range [][2]int64{{0, 8}, {1<<20 - 1, 2}, {3 << 20, 2<<20 + 17}, {5 << 20, 17}} {
		got := make([]byte, at[1])
		if _, err := r.ReadAt(got, at[0]); err != nil && err != io.EOF || !bytes.Equal(got, want[at[0]:at[0]+at[1]]) {
			t.Errorf("ReadAt(%d bytes at %d): %v, or other bytes", at[1], at[0], err)
		}
	}
}

// grants lets to read what from published and expects the
// manifest to stay as it is.
func grants(t *testing.T, from, to *party, ref, dir string) {
	t.Helper()
	ctx := t.Context()
	before, err := from.client().Resolve(ctx, ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.client().Grant(ctx, ref, from.policy, []encrypt.Recipient{to.identity.Recipient()}, &modelsec.GrantOptions{Signer: from.signer}); err != nil {
		t.Fatalf("Grant: %v", err)
	}
	pulled := filepath.Join(t.TempDir(), "granted")
	if _, err := to.client().Pull(ctx, ref, pulled, from.policy, nil); err != nil {
		t.Fatalf("Pull after Grant: %v", err)
	}
	sameTree(t, pulled, dir)
	after, err := from.client().Resolve(ctx, ref)
	if err != nil || after.Digest != before.Digest {
		t.Errorf("Grant moved the manifest from %s to %s: %v", before.Digest, after.Digest, err)
	}
}
