// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// mapOf copies a directory into memory.
func mapOf(t testing.TB, dir string) fstest.MapFS {
	t.Helper()
	out := fstest.MapFS{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[p] = &fstest.MapFile{Data: read(t, filepath.Join(dir, p))}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func model() fstest.MapFS {
	return fstest.MapFS{
		"model.safetensors":      {Data: []byte("weights")},
		"config.json":            {Data: []byte("{}")},
		"a-b/x":                  {Data: []byte("sorts before a/x by code point")},
		"a/x":                    {Data: []byte("and after it by component")},
		"a/.git/empty":           {},
		"naïve – 模型.txt":         {Data: []byte("UTF-8")},
		".git/HEAD":              {Data: []byte("ref")},
		".gitattributes":         {Data: []byte("*")},
		"cache/blob":             {Data: []byte("not signed")},
		".modelsec.index":        {Data: []byte("not of the model")},
		"with <html> & \"quotes": {Data: []byte("escaped")},
	}
}

var ignoreCache = &oms.SignOptions{IgnorePaths: []string{"cache"}}

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keySigner(t testing.TB, key crypto.Signer) provenance.Signer {
	t.Helper()
	s, err := oms.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign(t testing.TB, s provenance.Signer, fsys fs.FS, o *oms.SignOptions) *provenance.Bundle {
	t.Helper()
	b, err := oms.Sign(t.Context(), s, fsys, "llama", o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var curves = []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()}

func TestSignedModelVerifiesWithEveryCurve(t *testing.T) {
	for _, curve := range curves {
		key := newKey(t, curve)
		b := sign(t, keySigner(t, key), model(), ignoreCache)
		got, err := oms.Verify(t.Context(), provenance.KeyVerifier(key.Public()), b, model(), nil)
		if err != nil {
			t.Errorf("%s: %v", curve.Params().Name, err)
			continue
		}
		var paths []string
		for _, r := range got.Manifest.Resources {
			paths = append(paths, r.Path)
		}
		want := []string{"a-b/x", "a/.git/empty", "a/x", "config.json", "model.safetensors", "naïve – 模型.txt", "with <html> & \"quotes"}
		if !slices.Equal(paths, want) || got.Manifest.Name != "llama" {
			t.Errorf("%s: signed %q, want %q", curve.Params().Name, paths, want)
		}
		if want := []string{".git", ".gitattributes", ".modelsec.index", "cache"}; !slices.Equal(got.Unsigned, want) {
			t.Errorf("%s: unsigned %q, want %q", curve.Params().Name, got.Unsigned, want)
		}
		if _, err := oms.Verify(t.Context(), provenance.KeyVerifier(newKey(t, curve).Public()), b, model(), nil); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: with another key: got %v, want ErrSignature", curve.Params().Name, err)
		}
	}
}

func TestSignDigestsIsSign(t *testing.T) {
	s := keySigner(t, newKey(t, elliptic.P256()))
	files := make(map[string]digest.Digest)
	for p, f := range model() {
		if !strings.HasPrefix(p, ".") && !strings.HasPrefix(p, "cache/") {
			files[p] = digest.FromBytes(f.Data)
		}
	}
	b, err := oms.SignDigests(t.Context(), s, "llama", files, ignoreCache)
	if err != nil {
		t.Fatal(err)
	}
	if want := sign(t, s, model(), ignoreCache); string(b.Envelope().Payload) != string(want.Envelope().Payload) {
		t.Errorf("payload %s, want %s", b.Envelope().Payload, want.Envelope().Payload)
	}
	for _, bad := range []map[string]digest.Digest{nil, {"../x": digest.FromString("")}, {"x": "sha256:00"}, {"x": digest.SHA512.FromString("")}} {
		if _, err := oms.SignDigests(t.Context(), s, "llama", bad, nil); err == nil {
			t.Errorf("signed %v", bad)
		}
	}
}

// TestVerifyRefusesOtherModels: each differs from the signed one in one thing.
func TestVerifyRefusesOtherModels(t *testing.T) {
	key := newKey(t, elliptic.P256())
	b, v := sign(t, keySigner(t, key), model(), ignoreCache), provenance.KeyVerifier(key.Public())
	for name, c := range map[string]struct {
		change func(fstest.MapFS)
		want   oms.MismatchError
	}{
		"changed":                  {func(m fstest.MapFS) { m["config.json"].Data = []byte("[]") }, oms.MismatchError{Changed: []string{"config.json"}}},
		"longer":                   {func(m fstest.MapFS) { m["a/x"].Data = append(m["a/x"].Data, 0) }, oms.MismatchError{Changed: []string{"a/x"}}},
		"swapped":                  {func(m fstest.MapFS) { m["a/x"], m["a-b/x"] = m["a-b/x"], m["a/x"] }, oms.MismatchError{Changed: []string{"a-b/x", "a/x"}}},
		"missing":                  {func(m fstest.MapFS) { delete(m, "config.json") }, oms.MismatchError{Missing: []string{"config.json"}}},
		"missing empty":            {func(m fstest.MapFS) { delete(m, "a/.git/empty") }, oms.MismatchError{Missing: []string{"a/.git/empty"}}},
		"added":                    {func(m fstest.MapFS) { m["z.py"] = &fstest.MapFile{} }, oms.MismatchError{Unsigned: []string{"z.py"}}},
		"added beside the ignored": {func(m fstest.MapFS) { m["cache.py"] = &fstest.MapFile{} }, oms.MismatchError{Unsigned: []string{"cache.py"}}},
		"ignored below":            {func(m fstest.MapFS) { m["a/cache/x"] = &fstest.MapFile{} }, oms.MismatchError{Unsigned: []string{"a/cache/x"}}},
		"git below":                {func(m fstest.MapFS) { m["a/.git/HEAD"] = &fstest.MapFile{} }, oms.MismatchError{Unsigned: []string{"a/.git/HEAD"}}},
		"renamed": {func(m fstest.MapFS) { m["Config.json"] = m["config.json"]; delete(m, "config.json") },
			oms.MismatchError{Missing: []string{"config.json"}, Unsigned: []string{"Config.json"}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := model()
			c.change(m)
			_, err := oms.Verify(t.Context(), v, b, m, nil)
			var got *oms.MismatchError
			if !errors.As(err, &got) || got.Error() != c.want.Error() {
				t.Errorf("got %v, want %v", err, &c.want)
			}
		})
	}
}

// TestVerifyHashesWhatIsSignedThoughIgnored: the caller's list of what may be
// there unsigned takes nothing off the signature.
func TestVerifyHashesWhatIsSignedThoughIgnored(t *testing.T) {
	key := newKey(t, elliptic.P256())
	b, v := sign(t, keySigner(t, key), model(), ignoreCache), provenance.KeyVerifier(key.Public())
	for _, ignore := range []string{"a", "a/x"} {
		changed := model()
		changed["a/x"].Data = []byte("other")
		o := &oms.VerifyOptions{IgnorePaths: []string{ignore}}
		var mismatch *oms.MismatchError
		if _, err := oms.Verify(t.Context(), v, b, changed, o); !errors.As(err, &mismatch) || !slices.Equal(mismatch.Changed, []string{"a/x"}) {
			t.Errorf("ignoring %s: got %v, want a/x as changed", ignore, err)
		}
		if _, err := oms.Verify(t.Context(), v, b, model(), o); err != nil {
			t.Errorf("ignoring %s: %v", ignore, err)
		}
	}
	if _, err := oms.Verify(t.Context(), v, b, model(), &oms.VerifyOptions{IgnorePaths: []string{"../x"}}); err == nil {
		t.Error("an ignored path outside of the model was taken")
	}
}

// identity proves that somebody signed, whatever the bundle says.
type identity provenance.Principal

func (i identity) Verify(context.Context, *provenance.Bundle) (*provenance.Verified, error) {
	return &provenance.Verified{Signer: provenance.Principal(i)}, nil
}

func TestVerifyWantsIdentitiesNamed(t *testing.T) {
	key := newKey(t, elliptic.P256())
	b := sign(t, keySigner(t, key), model(), ignoreCache)
	alice := provenance.Principal{Issuer: "https://issuer.example.com", Subject: "alice@example.com"}
	bob := provenance.Principal{Issuer: alice.Issuer, Subject: "bob@example.com"}
	late := alice
	late.NotAfter = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		signers []provenance.Principal
		ok      bool
	}{
		"nobody": {nil, false}, "another": {[]provenance.Principal{bob}, false}, "one of two": {[]provenance.Principal{bob, alice}, true},
		"no issuer": {[]provenance.Principal{{Subject: alice.Subject}}, false}, "empty": {[]provenance.Principal{{}}, false},
		"no longer": {[]provenance.Principal{late}, false},
	} {
		_, err := oms.Verify(t.Context(), identity(alice), b, model(), &oms.VerifyOptions{Signers: c.signers})
		if c.ok != (err == nil) || err != nil && !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	s := keySigner(t, newKey(t, elliptic.P256()))
	link := fstest.MapFS{"x": {Data: []byte("x")}, "y": {Data: []byte("x"), Mode: fs.ModeSymlink}}
	for name, c := range map[string]struct {
		fsys    fs.FS
		name    string
		options oms.SignOptions
		want    string
	}{
		"nothing":                    {fstest.MapFS{".git/HEAD": {}}, "m", oms.SignOptions{}, "no files"},
		"no name":                    {model(), "", oms.SignOptions{}, "no name"},
		"a link":                     {link, "m", oms.SignOptions{}, `"y" is a symbolic link`},
		"a pipe":                     {fstest.MapFS{"p": {Mode: fs.ModeNamedPipe}}, "m", oms.SignOptions{}, `"p" is not a regular file`},
		"a name that is not UTF-8":   {fstest.MapFS{"\xff": {}}, "m", oms.SignOptions{}, "UTF-8"},
		"a pattern":                  {model(), "m", oms.SignOptions{IgnorePaths: []string{"*.py"}}, "pattern"},
		"a path outside":             {model(), "m", oms.SignOptions{IgnorePaths: []string{"../x"}}, "no path below"},
		"a directory as single file": {model(), "m", oms.SignOptions{File: "a"}, "not a regular file"},
	} {
		if _, err := oms.Sign(t.Context(), s, c.fsys, c.name, &c.options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := oms.Sign(ctx, s, model(), "m", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancel: got %v", err)
	}
}

func TestLinksCountWhereTheSignatureSaysSo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "blob"), []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("blob", filepath.Join(dir, "model.bin")); err != nil {
		t.Skip(err)
	}
	key := newKey(t, elliptic.P256())
	v := provenance.KeyVerifier(key.Public())
	b := sign(t, keySigner(t, key), os.DirFS(dir), &oms.SignOptions{AllowSymlinks: true})
	if _, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), nil); err != nil {
		t.Error(err)
	}
	plain := fstest.MapFS{"blob": {Data: []byte("weights")}, "model.bin": {Data: []byte("weights")}}
	b = sign(t, keySigner(t, key), plain, nil)
	if _, err := oms.Verify(t.Context(), v, b, os.DirFS(dir), nil); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("got %v, want the link refused", err)
	}
}

func TestSingleFile(t *testing.T) {
	key := newKey(t, elliptic.P256())
	v := provenance.KeyVerifier(key.Public())
	b := sign(t, keySigner(t, key), model(), &oms.SignOptions{File: "a/x"})
	got, err := oms.Verify(t.Context(), v, b, model(), &oms.VerifyOptions{File: "a/x"})
	if err != nil || len(got.Manifest.Resources) != 1 || got.Manifest.Resources[0].Path != "x" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, other := range []string{"a-b/x", "config.json", "none/x", "../x"} {
		if _, err := oms.Verify(t.Context(), v, b, model(), &oms.VerifyOptions{File: other}); err == nil {
			t.Errorf("%s verified", other)
		}
	}
}
