// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

func testResolve(t *testing.T, s registry.WriteStore) {
	const artifactType = "application/vnd.example.model.v1+json"
	b := manifest(t, s, artifactType, "resolve", nil)
	d := pushManifest(t, s, b)
	if again := pushManifest(t, s, b); again.Digest != d.Digest {
		t.Errorf("second PushManifest returned %s, want %s", again.Digest, d.Digest)
	}
	for _, tag := range []string{"v1", "latest"} {
		if err := s.Tag(t.Context(), d, tag); err != nil {
			t.Fatalf("Tag: %v", err)
		}
	}
	for _, ref := range []string{"v1", "latest", d.Digest.String()} {
		got, err := s.Resolve(t.Context(), ref)
		if err != nil {
			t.Errorf("Resolve(%s): %v", ref, err)
			continue
		}
		want := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: d.Digest, Size: int64(len(b)), ArtifactType: artifactType}
		if got.MediaType != want.MediaType || got.Digest != want.Digest || got.Size != want.Size || got.ArtifactType != want.ArtifactType {
			t.Errorf("Resolve(%s) = %+v, want %+v", ref, got, want)
		}
	}
	equal(t, "manifest", fetch(t, s, d, 0, d.Size), b)
	equal(t, "part of a manifest", fetch(t, s, d, 10, 20), b[10:30])
	for _, tag := range []string{"", ".v1", "-v1", "a/b", "a:b", "../x", string(bytes.Repeat([]byte("a"), 129))} {
		if err := s.Tag(t.Context(), d, tag); err == nil {
			t.Errorf("Tag(%q) succeeded", tag)
		}
	}
}

func testAmbiguity(t *testing.T, s registry.WriteStore) {
	plain := manifest(t, s, "", "plain", nil)
	for name, m := range map[string]struct {
		mediaType string
		b         []byte
	}{
		"layers and manifests": {ocispec.MediaTypeImageManifest, bytes.Replace(plain, []byte(`"layers"`), []byte(`"manifests":[],"layers"`), 1)},
		"repeated key":         {ocispec.MediaTypeImageManifest, bytes.Replace(plain, []byte(`"layers"`), []byte(`"layers":[],"layers"`), 1)},
		"key in other case":    {ocispec.MediaTypeImageManifest, bytes.Replace(plain, []byte(`"layers"`), []byte(`"Layers"`), 1)},
		"other type inside":    {ocispec.MediaTypeImageIndex, plain},
		"no manifest type":     {"application/json", plain},
		"no type":              {"", plain},
		"not JSON":             {ocispec.MediaTypeImageManifest, []byte("{")},
		"empty":                {ocispec.MediaTypeImageManifest, nil},
		"subject not sha256":   {ocispec.MediaTypeImageManifest, bytes.Replace(plain, []byte(`"layers"`), []byte(`"subject":{"digest":"sha512:00"},"layers"`), 1)},
	} {
		if _, err := s.PushManifest(t.Context(), m.mediaType, m.b); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: got error %v, want ErrInvalid", name, err)
		}
	}
	large := bytes.Replace(plain, []byte(`"note":"plain"`), fmt.Appendf(nil, `"note":%q`, bytes.Repeat([]byte("x"), 4<<20)), 1)
	_, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, large)
	wantError(t, "manifest over 4 MiB", err, registry.ErrLimit)
}

func testTagMoves(t *testing.T, s registry.WriteStore) {
	first := pushManifest(t, s, manifest(t, s, "", "first", nil))
	second := pushManifest(t, s, manifest(t, s, "", "second", nil))
	for _, d := range []ocispec.Descriptor{first, second, second, first} {
		if err := s.Tag(t.Context(), d, "v1"); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Resolve(t.Context(), "v1"); err != nil || got.Digest != d.Digest {
			t.Fatalf("Resolve = %s, %v; want %s", got.Digest, err, d.Digest)
		}
	}
	for _, d := range []ocispec.Descriptor{first, second} {
		if _, err := s.Resolve(t.Context(), d.Digest.String()); err != nil {
			t.Errorf("manifest that had the tag: %v", err)
		}
	}
}

func testTags(t *testing.T, s registry.WriteStore) {
	d := pushManifest(t, s, manifest(t, s, "", "tags", nil))
	want := make(map[string]int)
	for i := range 23 {
		tag := fmt.Sprintf("v%d.%d", i%3, i)
		if err := s.Tag(t.Context(), d, tag); err != nil {
			t.Fatal(err)
		}
		want[tag] = 1
	}
	got := make(map[string]int)
	for tag, err := range s.Tags(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		got[tag]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("Tags yielded %v, want each of %v once", got, slices.Sorted(maps.Keys(want)))
	}
	for range s.Tags(t.Context()) {
		break
	}
}

// listed returns how often each referrer is listed.
func listed(t *testing.T, s registry.Store, subject ocispec.Descriptor, artifactType string) map[digest.Digest]int {
	t.Helper()
	got := make(map[digest.Digest]int)
	for d, err := range s.Referrers(t.Context(), subject, artifactType) {
		if err != nil {
			t.Fatalf("Referrers: %v", err)
		}
		if d.MediaType != ocispec.MediaTypeImageManifest || d.Size <= 0 {
			t.Errorf("Referrers yielded %+v", d)
		}
		got[d.Digest]++
	}
	return got
}

func testReferrers(t *testing.T, s registry.WriteStore) {
	subject := pushManifest(t, s, manifest(t, s, "", "subject", nil))
	if got := listed(t, s, subject, ""); len(got) != 0 {
		t.Errorf("Referrers of a fresh manifest yielded %v", got)
	}
	want := make(map[digest.Digest]int)
	some := make(map[digest.Digest]int)
	for i := range 9 {
		artifactType := fmt.Sprintf("application/vnd.example.%d", i%2)
		d := pushManifest(t, s, manifest(t, s, artifactType, fmt.Sprint("referrer ", i), &subject))
		want[d.Digest] = 1
		if i%2 == 1 {
			some[d.Digest] = 1
		}
		// Listed as soon as PushManifest has returned.
		if got := listed(t, s, subject, ""); !maps.Equal(got, want) {
			t.Fatalf("after %d referrers: got %v, want %v", i+1, got, want)
		}
	}
	// The type is a hint: more may come, but not less.
	got := listed(t, s, subject, "application/vnd.example.1")
	for d := range some {
		if got[d] != 1 {
			t.Errorf("Referrers with an artifactType left out %s", d)
		}
	}
	for range s.Referrers(t.Context(), subject, "") {
		break
	}
	// A subject that does not exist may have referrers all the same.
	absent := describe([]byte("absent subject"))
	absent.MediaType = ocispec.MediaTypeImageManifest
	d := pushManifest(t, s, manifest(t, s, "application/vnd.example.0", "dangling", &absent))
	if got := listed(t, s, absent, ""); got[d.Digest] != 1 {
		t.Errorf("Referrers of an absent subject yielded %v, want %s", got, d.Digest)
	}
}

func testConcurrentReferrers(t *testing.T, s registry.WriteStore) {
	subject := pushManifest(t, s, manifest(t, s, "", "subject", nil))
	var manifests [][]byte
	want := make(map[digest.Digest]int)
	for i := range 6 {
		b := manifest(t, s, "application/vnd.example", fmt.Sprint("concurrent ", i), &subject)
		manifests = append(manifests, b)
		want[digest.FromBytes(b)] = 1
	}
	var group sync.WaitGroup
	for _, b := range manifests {
		group.Go(func() {
			if _, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, b); err != nil {
				t.Errorf("PushManifest: %v", err)
			}
		})
	}
	group.Wait()
	if got := listed(t, s, subject, ""); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testDelete(t *testing.T, s registry.WriteStore) {
	subject := pushManifest(t, s, manifest(t, s, "", "subject", nil))
	kept := pushManifest(t, s, manifest(t, s, "application/vnd.example", "kept", &subject))
	gone := pushManifest(t, s, manifest(t, s, "application/vnd.example", "gone", &subject))
	if err := s.Tag(t.Context(), gone, "gone"); err != nil {
		t.Fatal(err)
	}
	err := s.Delete(t.Context(), gone)
	if errors.Is(err, registry.ErrUnsupported) {
		t.Log("the store does not delete")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Resolve(t.Context(), gone.Digest.String())
	wantError(t, "Resolve of the digest", err, registry.ErrNotFound)
	if _, err := s.Resolve(t.Context(), "gone"); err == nil {
		t.Log("the store keeps the tags of deleted manifests")
	} else {
		wantError(t, "Resolve of the tag", err, registry.ErrNotFound)
	}
	if got := listed(t, s, subject, ""); !maps.Equal(got, map[digest.Digest]int{kept.Digest: 1}) {
		t.Errorf("Referrers after Delete: got %v, want %s", got, kept.Digest)
	}
	wantError(t, "second Delete", s.Delete(t.Context(), gone), registry.ErrNotFound)

	blob := push(t, s, content(777))
	err = s.Delete(t.Context(), blob)
	if errors.Is(err, registry.ErrUnsupported) {
		t.Log("the store does not delete blobs")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if there, err := s.Has(t.Context(), blob); there || err != nil {
		t.Errorf("Has after Delete = %v, %v", there, err)
	}
}
