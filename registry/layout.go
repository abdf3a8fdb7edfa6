// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	layoutBlobs  = "blobs/sha256"
	layoutIngest = "ingest" // unfinished files, as oras-go names it
)

// layoutStore is an OCI image layout on disk. Other tools may read it at any
// time, since files appear whole under their final names; what a killed process
// left in ingest may be deleted. Whoever can write
// the directory can also put anything there, so nothing read is believed:
// names lead to regular files inside of it or to nothing, and sizes are those
// of the bytes that come.
//
// The directory is opened anew for every operation: a store has no Close.
type layoutStore struct {
	name string // oci:DIR
	dir  string // absolute

	mu sync.Mutex // held while index.json is rewritten
}

func (l *layoutStore) fail(op, reference string, err error) error {
	// A path error of os.Root names a path below dir, which says all there is.
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return &Error{Op: op, Repository: l.name, Reference: reference, Err: err}
}

// read runs f with the directory, which must exist.
func (l *layoutStore) read(ctx context.Context, f func(root *os.Root) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := os.OpenRoot(l.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

func blobPath(d digest.Digest) string { return layoutBlobs + "/" + d.Encoded() }

// openRegular opens a regular file for reading without following symbolic
// links, of which os.Root would follow those that stay inside.
func openRegular(root *os.Root, path string) (*os.File, error) {
	for i := range path {
		if path[i] != '/' {
			continue
		}
		if info, err := root.Lstat(path[:i]); err != nil {
			return nil, err
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%w: %s is not a directory", ErrInvalid, path[:i])
		}
	}
	named, err := root.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !named.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a regular file", ErrInvalid, path)
	}
	f, err := root.Open(path)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err == nil && !os.SameFile(named, opened) {
		err = fmt.Errorf("%w: %s was replaced while it was opened", ErrInvalid, path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func readRegular(root *os.Root, path string, limit int64) ([]byte, error) {
	f, err := openRegular(root, path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: %s has more than %d bytes", ErrLimit, path, limit)
	}
	return b, err
}

// readManifest reads a manifest that must have the digest d. mediaType may be
// empty.
func readManifest(root *os.Root, d digest.Digest, mediaType string) (manifest, ocispec.Descriptor, []byte, error) {
	if err := checkDigest(d); err != nil {
		return manifest{}, ocispec.Descriptor{}, nil, err
	}
	b, err := readRegular(root, blobPath(d), maxManifest)
	if err != nil {
		return manifest{}, ocispec.Descriptor{}, nil, err
	}
	if got := digest.FromBytes(b); got != d {
		return manifest{}, ocispec.Descriptor{}, nil, fmt.Errorf("%w: the %d bytes of %s have digest %s", ErrInvalid, len(b), blobPath(d), got)
	}
	m, desc, err := parseManifest(mediaType, b)
	return m, desc, b, err
}

func (l *layoutStore) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	if err := checkTagOrDigest(tagOrDigest); err != nil {
		return ocispec.Descriptor{}, l.fail("resolve", "", err)
	}
	var found ocispec.Descriptor
	err := l.read(ctx, func(root *os.Root) error {
		index, err := readIndex(root)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool {
			return d.Annotations[ocispec.AnnotationRefName] == tagOrDigest
		})
		if at < 0 {
			at = slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Digest.String() == tagOrDigest })
		}
		if at >= 0 {
			entry := index.Manifests[at]
			_, found, _, err = readManifest(root, entry.Digest, entry.MediaType)
			return err
		}
		if checkDigest(digest.Digest(tagOrDigest)) != nil {
			return ErrNotFound
		}
		// A manifest that only an index names.
		_, found, _, err = readManifest(root, digest.Digest(tagOrDigest), "")
		return err
	})
	if err != nil {
		return ocispec.Descriptor{}, l.fail("resolve", tagOrDigest, err)
	}
	return found, nil
}

// Fetch compares the size of the file only to fail early; the reader yields n
// bytes or an error whatever the file does afterwards.
func (l *layoutStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	if err := checkRange(d, off, n); err != nil {
		return nil, l.fail("fetch", "", err)
	}
	reader := &layoutReader{ctx: ctx, store: l, ref: d.Digest.String(), off: off, n: n}
	err := l.read(ctx, func(root *os.Root) error {
		f, err := openBlob(root, d)
		if err != nil {
			return err
		}
		reader.file = f
		reader.body = io.NewSectionReader(f, off, n)
		return nil
	})
	if err != nil {
		return nil, l.fail("fetch", d.Digest.String(), err)
	}
	return reader, nil
}

func openBlob(root *os.Root, d ocispec.Descriptor) (*os.File, error) {
	f, err := openRegular(root, blobPath(d.Digest))
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.Size() != d.Size {
		f.Close()
		if err == nil {
			err = fmt.Errorf("%w: %d bytes on disk, descriptor says %d", ErrInvalid, info.Size(), d.Size)
		}
		return nil, err
	}
	return f, nil
}

type layoutReader struct {
	ctx   context.Context // of Fetch, which governs the reader
	store *layoutStore
	ref   string
	file  *os.File
	body  *io.SectionReader
	off   int64
	n     int64
	done  int64
}

func (r *layoutReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, r.store.fail("fetch", r.ref, err)
	}
	n, err := r.body.Read(p)
	r.done += int64(n)
	switch {
	case err == io.EOF && r.done < r.n:
		err = io.ErrUnexpectedEOF
		fallthrough
	case err != nil && err != io.EOF:
		err = r.store.fail("fetch", r.ref, fmt.Errorf("after %d of %d bytes at %d: %w", r.done, r.n, r.off, err))
	}
	return n, err
}

func (r *layoutReader) Close() error { return r.file.Close() }

// Referrers reads the manifests that index.json names, at most 64 MiB of
// them, and lists those with the subject. artifactType is not needed: nothing
// is saved by leaving entries out.
func (l *layoutStore) Referrers(ctx context.Context, subject ocispec.Descriptor, _ string) iter.Seq2[ocispec.Descriptor, error] {
	return func(yield func(ocispec.Descriptor, error) bool) {
		var found []ocispec.Descriptor
		err := checkDigest(subject.Digest)
		if err == nil {
			err = l.read(ctx, func(root *os.Root) error {
				found, err = scanReferrers(ctx, root, subject.Digest)
				return err
			})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield(ocispec.Descriptor{}, l.fail("list referrers", subject.Digest.String(), err))
			return
		}
		for _, d := range found {
			if !yield(d, nil) {
				return
			}
		}
	}
}

func scanReferrers(ctx context.Context, root *os.Root, subject digest.Digest) ([]ocispec.Descriptor, error) {
	index, err := readIndex(root)
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	seen := make(map[digest.Digest]bool)
	budget := int64(maxLayoutScan)
	for _, entry := range index.Manifests {
		if seen[entry.Digest] || entry.Digest == subject || !isManifest(entry.MediaType) {
			continue
		}
		seen[entry.Digest] = true
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		m, d, b, err := readManifest(root, entry.Digest, entry.MediaType)
		budget -= int64(len(b))
		switch {
		case budget < 0:
			return nil, fmt.Errorf("%w: more than %d bytes of manifests", ErrLimit, maxLayoutScan)
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%w: %s is listed and missing", ErrInvalid, entry.Digest)
		case err != nil:
			// Leaving it out could hide a referrer.
			return nil, err
		case m.Subject != nil && m.Subject.Digest == subject:
			found = append(found, m.referrer(d))
		}
	}
	return found, nil
}

func (l *layoutStore) Tags(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		var index ocispec.Index
		err := l.read(ctx, func(root *os.Root) (err error) {
			index, err = readIndex(root)
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			yield("", l.fail("list tags", "", err))
			return
		}
		for _, d := range index.Manifests {
			// The name may also be a whole reference, which is no tag.
			if tag := d.Annotations[ocispec.AnnotationRefName]; checkTag(tag) == nil && !yield(tag, nil) {
				return
			}
		}
	}
}
