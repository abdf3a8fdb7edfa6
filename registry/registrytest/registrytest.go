// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package registrytest holds the contract of registry.WriteStore as tests.
// Every implementation runs it, and so can those of other modules.
package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

// Run tests the stores that open returns. Each call of open returns an empty
// repository.
//
// A store that answers registry.ErrUnsupported to Delete is not tested
// further in that respect, and one that keeps the tags of deleted manifests
// is only reported. Whether a registry has the referrers API makes no
// difference to the contract. What registry.Putter, registry.ManifestResolver,
// registry.ReferrerPusher and registry.Sourced promise is tested where a store
// implements them. A registry behind the store must compare the digest of an
// upload with its bytes.
func Run(t *testing.T, open func(t *testing.T) registry.WriteStore) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, registry.WriteStore)
	}{
		{"FetchReturnsWhatWasWritten", testRoundTrip},
		{"FetchServesRanges", testRanges},
		{"FetchRefusesRangesOutside", testRangesOutside},
		{"FetchRefusesOtherDigestsThanSHA256", testDigests},
		{"UnknownIsNotFound", testUnknown},
		{"HasAnswersForBlobsAndManifests", testHas},
		{"CommitRefusesWrongDigest", testWrongDigest},
		{"CloseAbandonsTheBlob", testAbandon},
		{"WriterEndsWithCommit", testWriterEnds},
		{"CreateServesConcurrentWriters", testConcurrentWriters},
		{"PutStoresTheWhole", testPut},
		{"SourcesServeOrFail", testSources},
		{"ResolveFindsTagsAndDigests", testResolve},
		{"ResolveManifestReturnsTheBytes", testResolveManifest},
		{"PushManifestRefusesAmbiguity", testAmbiguity},
		{"TagMoves", testTagMoves},
		{"TagsListsAllPages", testTags},
		{"ReferrersListsAllPages", testReferrers},
		{"ReferrersKeepsConcurrentPushes", testConcurrentReferrers},
		{"PushReferrersListsAll", testPushReferrers},
		{"DeleteRemoves", testDelete},
		{"ContextEndsEverything", testContext},
		{"ContextEndsReadersAndWriters", testContextMidway},
		{"NothingLeaks", testLeaks},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// content is deterministic and does not repeat.
func content(size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(size), byte(size >> 8), byte(size >> 16)}).Read(b)
	return b
}

func describe(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// push writes b in pieces of uneven length.
func push(t *testing.T, s registry.WriteStore, b []byte) ocispec.Descriptor {
	t.Helper()
	d := describe(b)
	if err := pushBlob(t.Context(), s, b, d.Digest); err != nil {
		t.Fatalf("push of %d bytes: %v", len(b), err)
	}
	return d
}

func pushBlob(ctx context.Context, s registry.WriteStore, b []byte, d digest.Digest) error {
	w, err := s.Create(ctx, int64(len(b)))
	if err != nil {
		return err
	}
	defer w.Close()
	for piece := 1; len(b) > 0; piece = piece*3 + 1 {
		n, err := w.Write(b[:min(piece, len(b))])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return w.Commit(ctx, d)
}

func fetch(t *testing.T, s registry.Store, d ocispec.Descriptor, off, n int64) []byte {
	t.Helper()
	body, err := s.Fetch(t.Context(), d, off, n)
	if err != nil {
		t.Fatalf("Fetch(%d, %d) of %d bytes: %v", off, n, d.Size, err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read of Fetch(%d, %d): %v", off, n, err)
	}
	return b
}

// manifest returns a manifest of one layer, whose blobs it pushes.
func manifest(t *testing.T, s registry.WriteStore, artifactType, note string, subject *ocispec.Descriptor) []byte {
	t.Helper()
	config := push(t, s, []byte("{}"))
	config.MediaType = ocispec.MediaTypeEmptyJSON
	layer := push(t, s, []byte("layer"))
	b, err := json.Marshal(ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType,
		Config:       config,
		Layers:       []ocispec.Descriptor{layer},
		Subject:      subject,
		Annotations:  map[string]string{"note": note},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pushManifest(t *testing.T, s registry.WriteStore, b []byte) ocispec.Descriptor {
	t.Helper()
	d, err := s.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, b)
	if err != nil {
		t.Fatalf("PushManifest: %v", err)
	}
	if d.Digest != digest.FromBytes(b) || d.Size != int64(len(b)) || d.MediaType != ocispec.MediaTypeImageManifest {
		t.Fatalf("PushManifest returned %+v for %d bytes of digest %s", d, len(b), digest.FromBytes(b))
	}
	return d
}

func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func equal(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes that differ from the %d wanted", what, len(got), len(want))
	}
}
