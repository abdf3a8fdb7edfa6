// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"errors"
	"io"
	"math"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

func testRoundTrip(t *testing.T, s registry.WriteStore) {
	for _, size := range []int{0, 1, 4096, 70_000, 3<<20 + 1} {
		b := content(size)
		d := push(t, s, b)
		equal(t, "whole blob", fetch(t, s, d, 0, d.Size), b)
		// Again: content that is there is no error.
		push(t, s, b)
	}
	b := content(70_000)
	body, err := s.Fetch(t.Context(), describe(b), 0, int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if err := iotest.TestReader(struct{ io.Reader }{body}, b); err != nil {
		t.Error(err)
	}
}

func testRanges(t *testing.T, s registry.WriteStore) {
	b := content(300_000)
	d := push(t, s, b)
	for _, r := range [][2]int64{{0, 1}, {0, 299_999}, {1, 299_999}, {299_999, 1}, {4096, 4096}, {1000, 262_144}, {0, 300_000}} {
		equal(t, "range", fetch(t, s, d, r[0], r[1]), b[r[0]:r[0]+r[1]])
	}
	var group sync.WaitGroup
	for i := range int64(24) {
		group.Go(func() {
			body, err := s.Fetch(t.Context(), d, i*10_000, 10_000)
			if err != nil {
				t.Errorf("concurrent Fetch: %v", err)
				return
			}
			defer body.Close()
			got, err := io.ReadAll(body)
			if err != nil {
				t.Errorf("concurrent read: %v", err)
			}
			equal(t, "concurrent range", got, b[i*10_000:(i+1)*10_000])
		})
	}
	group.Wait()
}

func testRangesOutside(t *testing.T, s registry.WriteStore) {
	d := push(t, s, content(100))
	for _, r := range [][2]int64{{-1, 1}, {0, -1}, {0, 101}, {100, 1}, {1, 100}, {0, 0}, {100, 0}, {1, math.MaxInt64}, {math.MaxInt64, 1}, {math.MinInt64, 10}} {
		if body, err := s.Fetch(t.Context(), d, r[0], r[1]); err == nil {
			body.Close()
			t.Errorf("Fetch(%d, %d) of 100 bytes succeeded", r[0], r[1])
		}
	}
	for _, size := range []int64{-1, math.MinInt64} {
		d.Size = size
		_, err := s.Fetch(t.Context(), d, 0, 1)
		wantError(t, "negative size", err, registry.ErrLimit)
	}
}

func testDigests(t *testing.T, s registry.WriteStore) {
	push(t, s, []byte("x"))
	pushManifest(t, s, manifest(t, s, "", "untagged", nil))
	for _, bad := range []digest.Digest{
		"", "sha256:", "sha256", "sha256:" + digest.Digest(digest.FromString("x").Encoded()[:63]),
		"sha256:2D711642B726B04401627CA9FBAC32F5C8530FB1903CC4DB02258717921A4881",
		digest.SHA512.FromString("x"), "md5:9dd4e461268c8034f5c8564e155c67a6", "sha256:../../../../etc/passwd",
	} {
		if body, err := s.Fetch(t.Context(), ocispec.Descriptor{Digest: bad, Size: 1}, 0, 1); err == nil {
			body.Close()
			t.Errorf("Fetch of %q succeeded", bad)
		}
		if _, err := s.Resolve(t.Context(), string(bad)); err == nil {
			t.Errorf("Resolve of %q succeeded", bad)
		}
	}
}

func testUnknown(t *testing.T, s registry.WriteStore) {
	// An empty repository first, then one that exists.
	for range 2 {
		d := describe([]byte("never pushed"))
		_, err := s.Fetch(t.Context(), d, 0, d.Size)
		wantError(t, "Fetch of a blob", err, registry.ErrNotFound)
		m := d
		m.MediaType = ocispec.MediaTypeImageManifest
		_, err = s.Fetch(t.Context(), m, 0, m.Size)
		wantError(t, "Fetch of a manifest", err, registry.ErrNotFound)
		_, err = s.Resolve(t.Context(), "v1")
		wantError(t, "Resolve of a tag", err, registry.ErrNotFound)
		_, err = s.Resolve(t.Context(), m.Digest.String())
		wantError(t, "Resolve of a digest", err, registry.ErrNotFound)
		wantError(t, "Tag", s.Tag(t.Context(), m, "v1"), registry.ErrNotFound)
		if err := s.Delete(t.Context(), m); !errors.Is(err, registry.ErrUnsupported) {
			wantError(t, "Delete", err, registry.ErrNotFound)
		}
		var e *registry.Error
		if !errors.As(err, &e) || e.Temporary() || e.Op == "" || e.Repository == "" {
			t.Errorf("error %#v is not a lasting *registry.Error with Op and Repository", err)
		}
		for d, err := range s.Referrers(t.Context(), m, "") {
			t.Errorf("Referrers of an unknown subject yielded %v, %v", d, err)
		}
		push(t, s, content(10))
	}
}

func testHas(t *testing.T, s registry.WriteStore) {
	blob := describe(content(1234))
	m := manifest(t, s, "", "", nil)
	unpushed := describe(m)
	unpushed.MediaType = ocispec.MediaTypeImageManifest
	for _, want := range []bool{false, true} {
		for _, d := range []ocispec.Descriptor{blob, unpushed} {
			if got, err := s.Has(t.Context(), d); got != want || err != nil {
				t.Errorf("Has(%s) = %v, %v; want %v", d.MediaType, got, err, want)
			}
		}
		push(t, s, content(1234))
		pushManifest(t, s, m)
	}
}

func testWrongDigest(t *testing.T, s registry.WriteStore) {
	b, other := content(5000), content(5001)
	if err := pushBlob(t.Context(), s, b, describe(other).Digest); err == nil {
		t.Error("Commit took the digest of other bytes")
	}
	for _, d := range []ocispec.Descriptor{describe(b), describe(other)} {
		if there, err := s.Has(t.Context(), d); there || err != nil {
			t.Errorf("after a refused Commit: Has = %v, %v", there, err)
		}
	}
	for _, bad := range []digest.Digest{"", digest.SHA512.FromBytes(b)} {
		if err := pushBlob(t.Context(), s, b, bad); err == nil {
			t.Errorf("Commit took the digest %q", bad)
		}
	}
}

func testAbandon(t *testing.T, s registry.WriteStore) {
	b := content(200_000)
	for _, written := range []int{0, 1, len(b)} {
		w, err := s.Create(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b[:written]); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := w.Close(); err != nil {
				t.Errorf("Close after %d bytes: %v", written, err)
			}
		}
		if _, err := w.Write(b); err == nil {
			t.Error("Write after Close succeeded")
		}
		if err := w.Commit(t.Context(), describe(b).Digest); err == nil {
			t.Error("Commit after Close succeeded")
		}
	}
	if there, err := s.Has(t.Context(), describe(b)); there || err != nil {
		t.Errorf("abandoned blob: Has = %v, %v", there, err)
	}
}

func testWriterEnds(t *testing.T, s registry.WriteStore) {
	b := content(100)
	w, err := s.Create(t.Context(), 100)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if n, err := w.Write(b); n != 100 || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	if err := w.Commit(t.Context(), describe(b).Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err == nil {
		t.Error("Write after Commit succeeded")
	}
	if err := w.Commit(t.Context(), describe(b).Digest); err == nil {
		t.Error("second Commit succeeded")
	}
	if err := w.Close(); err != nil {
		t.Errorf("Close after Commit: %v", err)
	}
	equal(t, "blob", fetch(t, s, describe(b), 0, 100), b)
}

func testConcurrentWriters(t *testing.T, s registry.WriteStore) {
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			// Pairs write the same content.
			b := content(100_000 + i/2)
			if err := pushBlob(t.Context(), s, b, describe(b).Digest); err != nil {
				t.Errorf("writer %d: %v", i, err)
			}
		})
	}
	group.Wait()
	for i := range 4 {
		b := content(100_000 + i)
		equal(t, "blob", fetch(t, s, describe(b), 0, int64(len(b))), b)
	}
}
