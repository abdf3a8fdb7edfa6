// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"

	"github.com/modelsec/modelsec-go/registry"
)

func layout(t *testing.T) (registry.WriteStore, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	return open(t, new(registry.Client), "oci:"+dir), dir
}

func blobFile(dir string, d ocispec.Descriptor) string {
	return filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
}

func TestLayoutIsReadByOras(t *testing.T) {
	s, dir := layout(t)
	blob := pushBlob(t, s, []byte("{}"))
	m := pushManifest(t, s, "model", nil)
	referrer := pushManifest(t, s, "evidence", &m)
	if err := s.Tag(t.Context(), m, "v1"); err != nil {
		t.Fatal(err)
	}
	store, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := store.Resolve(t.Context(), "v1"); err != nil || d.Digest != m.Digest {
		t.Errorf("oras resolves v1 to %s, %v", d.Digest, err)
	}
	if b, err := content.FetchAll(t.Context(), store, blob); err != nil || string(b) != "{}" {
		t.Errorf("oras fetches %q, %v", b, err)
	}
	found, err := store.Predecessors(t.Context(), m)
	if err != nil || len(found) != 1 || found[0].Digest != referrer.Digest {
		t.Errorf("oras finds the referrers %v, %v", found, err)
	}
}

func TestLayoutOfOrasIsRead(t *testing.T) {
	dir := t.TempDir()
	store, err := oci.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.example", oras.PackManifestOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Tag(t.Context(), m, "v1"); err != nil {
		t.Fatal(err)
	}
	referrer, err := oras.PackManifest(t.Context(), store, oras.PackManifestVersion1_1, "application/vnd.evidence", oras.PackManifestOptions{Subject: &m})
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, new(registry.Client), "oci:"+dir)
	if d, err := s.Resolve(t.Context(), "v1"); err != nil || d.Digest != m.Digest || d.ArtifactType != "application/vnd.example" {
		t.Errorf("Resolve = %+v, %v", d, err)
	}
	n := 0
	for d, err := range s.Referrers(t.Context(), m, "") {
		if n++; err != nil || d.Digest != referrer.Digest || d.ArtifactType != "application/vnd.evidence" {
			t.Errorf("Referrers yielded %+v, %v", d, err)
		}
	}
	if n != 1 {
		t.Errorf("%d referrers, want 1", n)
	}
	second := pushManifest(t, s, "second", nil)
	if err := s.Tag(t.Context(), second, "v1"); err != nil {
		t.Fatal(err)
	}
	if store, err = oci.New(dir); err != nil {
		t.Fatal(err)
	}
	if d, err := store.Resolve(t.Context(), "v1"); err != nil || d.Digest != second.Digest {
		t.Errorf("oras resolves the moved tag to %s, %v", d.Digest, err)
	}
	if _, err := store.Resolve(t.Context(), m.Digest.String()); err != nil {
		t.Errorf("the manifest that lost its tag: %v", err)
	}
}

func TestLayoutDoesNotFollowLinks(t *testing.T) {
	for name, tamper := range map[string]func(t *testing.T, dir string, d ocispec.Descriptor){
		"blob outside": func(t *testing.T, dir string, d ocispec.Descriptor) {
			outside := filepath.Join(t.TempDir(), "outside")
			must(t, os.Rename(blobFile(dir, d), outside), os.Symlink(outside, blobFile(dir, d)))
		},
		"blob inside": func(t *testing.T, dir string, d ocispec.Descriptor) {
			must(t, os.Rename(blobFile(dir, d), filepath.Join(dir, "inside")), os.Symlink("../../inside", blobFile(dir, d)))
		},
		"directory of blobs": func(t *testing.T, dir string, d ocispec.Descriptor) {
			must(t, os.Rename(filepath.Join(dir, "blobs"), filepath.Join(dir, "moved")), os.Symlink("moved", filepath.Join(dir, "blobs")))
		},
		"directory in place of a blob": func(t *testing.T, dir string, d ocispec.Descriptor) {
			must(t, os.Remove(blobFile(dir, d)), os.Mkdir(blobFile(dir, d), 0o755))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dir := layout(t)
			d := pushManifest(t, s, "linked", nil)
			must(t, s.Tag(t.Context(), d, "v1"))
			tamper(t, dir, d)
			if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("Resolve: got error %v, want ErrInvalid", err)
			}
			if _, err := read(t, s, d, 0, d.Size); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("Fetch: got error %v, want ErrInvalid", err)
			}
			if _, err := s.Has(t.Context(), d); !errors.Is(err, registry.ErrInvalid) {
				t.Errorf("Has: got error %v, want ErrInvalid", err)
			}
		})
	}
	for _, file := range []string{"index.json", "oci-layout", "ingest"} {
		t.Run(file, func(t *testing.T) {
			s, dir := layout(t)
			outside := t.TempDir()
			must(t, os.MkdirAll(dir, 0o755), os.Symlink(filepath.Join(outside, "x"), filepath.Join(dir, file)))
			_, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, manifestOf(t, "", nil))
			if entries, _ := os.ReadDir(outside); len(entries) != 0 {
				t.Errorf("wrote %v outside of the layout (error %v)", entries, err)
			}
		})
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestLayoutDistrustsItsFiles(t *testing.T) {
	s, dir := layout(t)
	m := pushManifest(t, s, "distrust", nil)
	must(t, s.Tag(t.Context(), m, "v1"))
	good, err := os.ReadFile(blobFile(dir, m))
	must(t, err)
	for at := range good {
		bad := bytes.Clone(good)
		bad[at] ^= 0x20
		must(t, os.WriteFile(blobFile(dir, m), bad, 0o644))
		for _, ref := range []string{"v1", m.Digest.String()} {
			if _, err := s.Resolve(t.Context(), ref); !errors.Is(err, registry.ErrInvalid) {
				t.Fatalf("Resolve(%s) with byte %d changed: got error %v, want ErrInvalid", ref, at, err)
			}
		}
	}
	must(t, os.WriteFile(blobFile(dir, m), good, 0o644))
	index, err := os.ReadFile(filepath.Join(dir, "index.json"))
	must(t, err)
	for name, c := range map[string]struct {
		index string
		want  error
	}{
		"repeated key":   {strings.Replace(string(index), `"manifests"`, `"manifests":[],"manifests"`, 1), registry.ErrInvalid},
		"case variant":   {strings.Replace(string(index), `"manifests"`, `"Manifests":[],"manifests"`, 1), registry.ErrInvalid},
		"over the size":  {string(index) + strings.Repeat(" ", 9<<20), registry.ErrLimit},
		"many entries":   {`{"schemaVersion":2,"manifests":[` + strings.Repeat(`{},`, 500_000) + `{}]}`, registry.ErrLimit},
		"path as digest": {strings.Replace(string(index), m.Digest.String(), "sha256:../../../../../../../../../../etc/passwd", 1), nil},
		"cut off":        {string(index[:len(index)/2]), registry.ErrInvalid},
	} {
		must(t, os.WriteFile(filepath.Join(dir, "index.json"), []byte(c.index), 0o644))
		if _, err := s.Resolve(t.Context(), "v1"); err == nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: got error %v, want %v", name, err, c.want)
		}
	}
}

func TestLayoutReferrersReportsMissingManifests(t *testing.T) {
	s, dir := layout(t)
	m := pushManifest(t, s, "subject", nil)
	referrer := pushManifest(t, s, "evidence", &m)
	must(t, os.Remove(blobFile(dir, referrer)))
	var last error
	for _, last = range s.Referrers(t.Context(), m, "") {
	}
	if !errors.Is(last, registry.ErrInvalid) {
		t.Errorf("got error %v, want ErrInvalid: a missing referrer is not an absent one", last)
	}
}

func TestLayoutReaderReportsTruncation(t *testing.T) {
	s, dir := layout(t)
	d := pushBlob(t, s, pattern(100_000))
	body, err := s.Fetch(t.Context(), d, 10, 90_000)
	must(t, err)
	defer body.Close()
	must(t, os.Truncate(blobFile(dir, d), 50_000))
	if b, err := io.ReadAll(body); !errors.Is(err, io.ErrUnexpectedEOF) || len(b) != 49_990 {
		t.Errorf("got %d bytes and error %v, want 49990 and io.ErrUnexpectedEOF", len(b), err)
	}
	if _, err := s.Fetch(t.Context(), d, 0, 10); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("Fetch of a short file: got error %v, want ErrInvalid", err)
	}
}

func TestLayoutLeavesNoUnfinishedFiles(t *testing.T) {
	s, dir := layout(t)
	w, err := s.Create(t.Context(), -1)
	must(t, err)
	if _, err := w.Write(pattern(1000)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), digest.FromString("other")); !errors.Is(err, registry.ErrInvalid) {
		t.Errorf("got error %v, want ErrInvalid", err)
	}
	must(t, w.Close())
	w, err = s.Create(t.Context(), -1)
	must(t, err)
	must(t, w.Close())
	pushManifest(t, s, "done", nil)
	for _, sub := range []string{"ingest"} {
		if entries, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(entries) != 0 {
			t.Errorf("%s holds %v, %v", sub, entries, err)
		}
	}
}

func TestLayoutRefusesALinkAsItsDirectoryTree(t *testing.T) {
	s, dir := layout(t)
	outside := t.TempDir()
	must(t, os.MkdirAll(dir, 0o755), os.Symlink(outside, filepath.Join(dir, "blobs")))
	if _, err := s.Create(t.Context(), -1); err == nil {
		t.Error("Create succeeded in a layout whose blobs are a link")
	}
	if entries, _ := os.ReadDir(outside); len(entries) != 0 {
		t.Errorf("wrote %v outside of the layout", entries)
	}
}

func TestLayoutKeepsConcurrentTags(t *testing.T) {
	dir := t.TempDir()
	c := new(registry.Client)
	d := pushManifest(t, open(t, c, "oci:"+dir), "tagged", nil)
	var group sync.WaitGroup
	for i := range 20 {
		group.Go(func() {
			if err := open(t, c, "oci:"+dir+"/.").Tag(t.Context(), d, fmt.Sprint("v", i)); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	n := 0
	for _, err := range open(t, c, "oci:"+dir).Tags(t.Context()) {
		must(t, err)
		n++
	}
	if n != 20 {
		t.Errorf("%d tags, want 20", n)
	}
}
