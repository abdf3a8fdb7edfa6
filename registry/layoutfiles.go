// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"runtime"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// write runs f with the directory, which is made a layout first.
func (l *layoutStore) write(ctx context.Context, f func(root *os.Root) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := os.MkdirAll(l.dir, 0o777); err != nil {
		return err
	}
	return l.read(ctx, func(root *os.Root) error {
		for _, dir := range []string{"blobs", layoutBlobs, layoutIngest} {
			if err := root.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if info, err := root.Lstat(dir); err != nil {
				return err
			} else if !info.IsDir() {
				return fmt.Errorf("%w: %s is not a directory", ErrInvalid, dir)
			}
		}
		if _, err := root.Lstat(ocispec.ImageLayoutFile); errors.Is(err, fs.ErrNotExist) {
			b, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
			if err != nil {
				return err
			}
			if err := replaceFile(root, ocispec.ImageLayoutFile, b); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		return f(root)
	})
}

// temporaryFile creates a file of a name that nobody else uses.
func temporaryFile(root *os.Root) (*os.File, string, error) {
	name := layoutIngest + "/" + rand.Text()
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	return f, name, err
}

// publish makes a complete temporary file durable under its final name. An
// error of Sync is final: a second one would not report what the first lost.
func publish(root *os.Root, f *os.File, temp, name string) error {
	err := f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = root.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(temp))
	}
	return syncDirectory(root, path.Dir(name))
}

func syncDirectory(root *os.Root, dir string) error {
	if runtime.GOOS == "windows" {
		// Directories cannot be synced there; the rename is journalled.
		return nil
	}
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

func replaceFile(root *os.Root, name string, b []byte) error {
	f, temp, err := temporaryFile(root)
	if err != nil {
		return err
	}
	if _, err := f.Write(b); err != nil {
		return errors.Join(err, f.Close(), root.Remove(temp))
	}
	return publish(root, f, temp, name)
}

// readIndex reads index.json; a layout without one is empty.
func readIndex(root *os.Root) (ocispec.Index, error) {
	b, err := readRegular(root, ocispec.ImageIndexFile, maxListing)
	if errors.Is(err, fs.ErrNotExist) {
		return ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}, nil
	}
	if err != nil {
		return ocispec.Index{}, err
	}
	index, err := parseIndex(b)
	if err != nil {
		return index, fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	return index, nil
}

// rewriteIndex changes index.json.
func (l *layoutStore) rewriteIndex(root *os.Root, change func([]ocispec.Descriptor) []ocispec.Descriptor) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	index, err := readIndex(root)
	if err != nil {
		return err
	}
	index.Manifests = change(index.Manifests)
	if index.Manifests == nil {
		index.Manifests = []ocispec.Descriptor{}
	}
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if len(b) > maxListing || len(index.Manifests) > maxReferrers {
		return fmt.Errorf("%w: %s of %d bytes and %d entries", ErrLimit, ocispec.ImageIndexFile, len(b), len(index.Manifests))
	}
	return replaceFile(root, ocispec.ImageIndexFile, b)
}
