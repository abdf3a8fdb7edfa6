// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry moves bytes by digest between a program and an OCI
// registry, an OCI image layout on disk, or memory.
//
// Most callers need two calls: [ParseReference] splits what a person typed,
// and [Client.Open] gives the store that the name stands for:
//
//	ref, err := registry.ParseReference("registry.example.com/team/llama:v3")
//	store, err := new(registry.Client).Open(ctx, ref.Name)
//	d, err := store.Resolve(ctx, ref.Tag)
//	body, err := store.Fetch(ctx, d, 0, d.Size)
//
// # Security
//
// The package knows no keys and no policy, and the other side is not trusted:
// every length it announces meets a limit before memory is taken, credentials
// never leave the origin they were looked up for except to the token service
// that this origin names, and neither redirects nor token services reach into
// a network that the registry itself is not in. Manifests are hashed where
// they are resolved. Blob content is not hashed by Fetch: whoever fetches
// verifies, because only the caller knows whether a whole digest or the
// digest of a segment proves the bytes.
package registry

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Opener finds the store of a repository. [*Client] and [*Memory] implement
// it. Open must be safe for concurrent use and should not block on the
// network: a repository that does not exist shows when it is read.
type Opener interface {
	// Open returns the store that name, the Name of a [Reference], stands for.
	// It also implements [WriteStore] where the place can be written.
	Open(ctx context.Context, name string) (Store, error)
}

// Store reads one repository. Every implementation passes
// registrytest.Run.
//
// All methods may be called concurrently. They stop soon after ctx is done and
// then return an error that wraps ctx.Err(). What is not there is
// [ErrNotFound]; whatever goes beyond a limit of this package is [ErrLimit].
// Errors that pass with time answer true to Temporary (see [Error]);
// implementations have retried those themselves as far as that is safe, so a
// caller repeats an operation only to continue it elsewhere.
type Store interface {
	// Resolve reads the manifest that a tag or digest names, at most 4 MiB,
	// and describes it: MediaType, Digest, Size, and ArtifactType where the
	// manifest has one. The digest is computed from the bytes read and never
	// taken from what the other side claims; where the argument is a digest,
	// a difference is an error. A manifest that two readers could understand
	// differently (repeated keys, both layers and manifests, a mediaType that
	// contradicts how it was served) is an error.
	Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error)

	// Fetch reads n bytes of the blob or manifest d, beginning at off. The
	// range must lie within d.Size and must not be empty unless d is. Of d only
	// MediaType, Digest and Size are used; its URLs are ignored.
	//
	// The reader yields exactly n bytes and then io.EOF, or fails: a body
	// that ends early is an error that wraps io.ErrUnexpectedEOF. Failures
	// before the first byte have been retried; after it the caller asks for
	// what is missing. A store that cannot serve the range, only the whole,
	// returns [ErrRangeIgnored]. The bytes are NOT verified against d.Digest.
	//
	// ctx governs the reader as well. The caller must close it; it is not
	// safe for concurrent use.
	Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error)

	// Referrers lists the manifests whose subject is the given one, all pages
	// of them, as descriptors exactly as the other side lists them: digest,
	// size and artifactType are claims. artifactType, unless empty, is a hint
	// that lets a registry leave others out; descriptors of other types are
	// yielded all the same, because tools write wrong types into listings. A
	// caller fetches and classifies the manifest itself.
	//
	// No referrers means no items and no error. After an error the iteration
	// ends; a listing of more than 10,000 entries or 8 MiB ends in [ErrLimit].
	Referrers(ctx context.Context, subject ocispec.Descriptor, artifactType string) iter.Seq2[ocispec.Descriptor, error]

	// Tags lists the tags of the repository, in the order of the store, tags
	// that hold listings of referrers included. A repository that does not
	// exist has no tags, or is [ErrNotFound]. After an error the iteration
	// ends; more than 100,000 tags end in [ErrLimit].
	Tags(ctx context.Context) iter.Seq2[string, error]
}

// WriteStore is a [Store] that can be written. Writing what is already there
// succeeds and changes nothing, except that Tag moves a tag.
type WriteStore interface {
	Store

	// Has reports whether the blob or manifest d is there. It takes the other
	// side's word: true saves an upload, it does not prove content.
	Has(ctx context.Context, d ocispec.Descriptor) (bool, error)

	// Create begins the upload of a blob whose digest is not known yet.
	// sizeHint is the expected length in bytes, or -1; the blob may turn out
	// longer or shorter. ctx governs the upload until Commit or Close.
	Create(ctx context.Context, sizeHint int64) (BlobWriter, error)

	// PushManifest stores a manifest of at most 4 MiB under its digest, which
	// it computes, and returns its descriptor. If the manifest has a subject,
	// it is listed by Referrers of that subject when PushManifest returns. It
	// may be called again after any error.
	PushManifest(ctx context.Context, mediaType string, b []byte) (ocispec.Descriptor, error)

	// Tag makes tag name the manifest d, which must be in the repository.
	Tag(ctx context.Context, d ocispec.Descriptor, tag string) error

	// Delete removes a blob or a manifest, and a manifest from the listing of
	// its subject. Its tags go too, except on registries that keep what a tag
	// names apart. Deleting what is not there is [ErrNotFound], also where the
	// reply to an earlier attempt was lost. A store that cannot delete returns
	// [ErrUnsupported].
	Delete(ctx context.Context, d ocispec.Descriptor) error
}

// BlobWriter receives one blob in order. It is used by one goroutine.
//
// Nothing is retried: after an error the caller closes the writer and sends
// the blob again through a new one. Nothing becomes visible before Commit
// returns nil.
type BlobWriter interface {
	io.Writer

	// Commit finishes the blob; it is called once. A digest that is not that
	// of the bytes written is refused: by layouts and memory here, by
	// registries there.
	Commit(ctx context.Context, d digest.Digest) error

	// Close releases the writer and, unless Commit has succeeded, abandons
	// what was written. It may be called more than once, and must be called.
	Close() error
}

// Mounter is implemented by a [WriteStore] that may take a blob from another
// repository of the same host without moving its bytes.
type Mounter interface {
	// Mount makes the blob d of fromRepository (a path without host) part of
	// this repository. False without an error means that the registry will
	// not do so, and that the blob must be uploaded.
	Mount(ctx context.Context, d ocispec.Descriptor, fromRepository string) (bool, error)
}

// ManifestResolver is implemented by a [Store] that reads a manifest to resolve
// its name, so that nobody need fetch it once more.
type ManifestResolver interface {
	// ResolveManifest is Resolve with the bytes, of which d is the descriptor.
	ResolveManifest(ctx context.Context, tagOrDigest string) (d ocispec.Descriptor, b []byte, err error)
}

// ReferrerPusher is implemented by a [WriteStore] that can list several
// manifests for one subject at once. Where clients keep the listing, each
// PushManifest waits until it has held for a while; this waits once.
type ReferrerPusher interface {
	// PushReferrers stores OCI image manifests with one and the same subject and
	// lists them in this order; when it returns, all are listed. Otherwise it is
	// like PushManifest for each.
	PushReferrers(ctx context.Context, manifests ...[]byte) ([]ocispec.Descriptor, error)
}

// checkRange refuses descriptors and ranges that no store serves.
func checkRange(d ocispec.Descriptor, off, n int64) error {
	if err := checkDigest(d.Digest); err != nil {
		return err
	}
	switch {
	case d.Size < 0:
		return fmt.Errorf("%w: size %d", ErrLimit, d.Size)
	case isManifest(d.MediaType) && d.Size > maxManifest:
		return fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrLimit, d.Size, maxManifest)
	case off < 0 || n < 0 || off > d.Size || n > d.Size-off:
		return fmt.Errorf("range of %d bytes at %d is outside of the %d bytes of %s", n, off, d.Size, d.Digest)
	case n == 0 && d.Size > 0:
		return fmt.Errorf("empty range at %d of %s", off, d.Digest)
	}
	return nil
}

// BlobSource serves blobs from somewhere else than the registry that has
// them: a mirror, a cache, a peer-to-peer engine. It is trusted with nothing:
// whoever uses it verifies every byte, and asks another where it fails.
type BlobSource interface {
	// Fetch has the contract of Store.Fetch, for blobs.
	Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error)

	// String names the source in errors and reports. It holds no secret.
	String() string
}

// Sourced is implemented by a [Store] whose blobs can be had elsewhere too.
type Sourced interface {
	// Sources lists the places to ask before the store itself, in order.
	Sources() []BlobSource
}
