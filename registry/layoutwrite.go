// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func (l *layoutStore) Has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	err := checkRange(d, 0, d.Size)
	if err == nil {
		err = l.read(ctx, func(root *os.Root) error {
			f, err := openBlob(root, d)
			if err != nil {
				return err
			}
			return f.Close()
		})
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, l.fail("check", d.Digest.String(), err)
	}
	return true, nil
}

func (l *layoutStore) Create(ctx context.Context, _ int64) (BlobWriter, error) {
	w := &layoutWriter{ctx: ctx, store: l, hash: sha256.New()}
	err := l.write(ctx, func(root *os.Root) (err error) {
		w.file, w.temp, err = temporaryFile(root)
		return err
	})
	if err != nil {
		return nil, l.fail("create", "", err)
	}
	return w, nil
}

type layoutWriter struct {
	ctx   context.Context // of Create, which governs the upload
	store *layoutStore
	file  *os.File // nil: closed or committed
	temp  string
	hash  hash.Hash
	size  int64
}

func (w *layoutWriter) Write(p []byte) (int, error) {
	if w.file == nil {
		return 0, w.store.fail("write", "", errWriterClosed)
	}
	if err := w.ctx.Err(); err != nil {
		return 0, w.store.fail("write", "", err)
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.size += int64(n)
	if err != nil {
		err = w.store.fail("write", "", err)
	}
	return n, err
}

func (w *layoutWriter) Commit(ctx context.Context, d digest.Digest) error {
	if w.file == nil {
		return w.store.fail("commit", d.String(), errWriterClosed)
	}
	err := errors.Join(ctx.Err(), w.ctx.Err(), checkDigest(d))
	if got := digest.NewDigest(digest.SHA256, w.hash); err == nil && got != d {
		err = fmt.Errorf("%w: %d bytes written have digest %s", ErrInvalid, w.size, got)
	}
	if err != nil {
		return w.store.fail("commit", d.String(), errors.Join(err, w.Close()))
	}
	err = w.store.write(ctx, func(root *os.Root) error {
		f := w.file
		w.file = nil
		return publish(root, f, w.temp, blobPath(d))
	})
	if err != nil {
		return w.store.fail("commit", d.String(), errors.Join(err, w.Close()))
	}
	return nil
}

func (w *layoutWriter) Close() error {
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	// Also after the context of the upload has ended.
	return errors.Join(err, w.store.read(context.WithoutCancel(w.ctx), func(root *os.Root) error { return root.Remove(w.temp) }))
}

// PushManifest lists every manifest in index.json, as oras does, so that
// referrers are found without reading all blobs.
func (l *layoutStore) PushManifest(ctx context.Context, mediaType string, b []byte) (ocispec.Descriptor, error) {
	_, d, err := checkPush(mediaType, b)
	if err == nil {
		err = l.write(ctx, func(root *os.Root) error {
			if err := l.putBlob(root, d, b); err != nil {
				return err
			}
			return l.rewriteIndex(root, func(manifests []ocispec.Descriptor) []ocispec.Descriptor {
				if slices.ContainsFunc(manifests, func(e ocispec.Descriptor) bool { return e.Digest == d.Digest }) {
					return manifests
				}
				return append(manifests, d)
			})
		})
	}
	if err != nil {
		return ocispec.Descriptor{}, l.fail("push manifest", d.Digest.String(), err)
	}
	return d, nil
}

// putBlob writes b unless the very bytes are there.
func (l *layoutStore) putBlob(root *os.Root, d ocispec.Descriptor, b []byte) error {
	if old, err := readRegular(root, blobPath(d.Digest), maxManifest); err == nil && bytes.Equal(old, b) {
		return nil
	}
	return replaceFile(root, blobPath(d.Digest), b)
}

func (l *layoutStore) Tag(ctx context.Context, d ocispec.Descriptor, tag string) error {
	err := checkTag(tag)
	if err == nil {
		err = l.write(ctx, func(root *os.Root) error {
			_, found, _, err := readManifest(root, d.Digest, d.MediaType)
			if err != nil {
				return err
			}
			return l.rewriteIndex(root, func(manifests []ocispec.Descriptor) []ocispec.Descriptor {
				return setTag(manifests, found, tag)
			})
		})
	}
	if err != nil {
		return l.fail("tag", tag, err)
	}
	return nil
}

// setTag moves tag to d. A manifest is listed once for each of its tags, and
// once without a name while it has none.
func setTag(manifests []ocispec.Descriptor, d ocispec.Descriptor, tag string) []ocispec.Descriptor {
	var kept []ocispec.Descriptor
	for _, e := range manifests {
		name := e.Annotations[ocispec.AnnotationRefName]
		switch {
		case name == tag && e.Digest != d.Digest:
			if !slices.ContainsFunc(manifests, func(o ocispec.Descriptor) bool {
				return o.Digest == e.Digest && o.Annotations[ocispec.AnnotationRefName] != tag
			}) {
				delete(e.Annotations, ocispec.AnnotationRefName)
				kept = append(kept, e)
			}
		case e.Digest == d.Digest && (name == "" || name == tag):
		default:
			kept = append(kept, e)
		}
	}
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	return append(kept, d)
}

// Delete removes what index.json says before the content.
func (l *layoutStore) Delete(ctx context.Context, d ocispec.Descriptor) error {
	there, err := l.Has(ctx, d)
	if err != nil {
		return err
	}
	if !there {
		return l.fail("delete", d.Digest.String(), ErrNotFound)
	}
	err = l.write(ctx, func(root *os.Root) error {
		if isManifest(d.MediaType) {
			err := l.rewriteIndex(root, func(manifests []ocispec.Descriptor) []ocispec.Descriptor {
				return slices.DeleteFunc(manifests, func(e ocispec.Descriptor) bool { return e.Digest == d.Digest })
			})
			if err != nil {
				return err
			}
		}
		if err := root.Remove(blobPath(d.Digest)); err != nil {
			return err
		}
		return syncDirectory(root, layoutBlobs)
	})
	if err != nil {
		return l.fail("delete", d.Digest.String(), err)
	}
	return nil
}
