// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"slices"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/provenance"
)

// PlaintextRoot returns the plaintext root (FORMAT.md §9.4) of what a Push of
// src with the same options would publish. Every file is read once. A publisher
// signs it as provenance.NewPlaintext among PushOptions.Statements. It tells
// whoever has the same files that these are they.
func PlaintextRoot(ctx context.Context, src fs.FS, o *PushOptions) (godigest.Digest, error) {
	if o == nil {
		o = &PushOptions{}
	}
	list, err := listSource(ctx, src, o)
	if err != nil {
		return "", err
	}
	files := make([]provenance.FileDigest, len(list))
	err = parallel(ctx, len(list), pushParts, func(ctx context.Context, i int) error {
		f, err := openSource(src, list[i], 0, list[i].size)
		if err != nil {
			return err
		}
		defer f.Close()
		h := digest.New()
		if n, err := io.Copy(h, f); err != nil {
			return err
		} else if n != list[i].size {
			return fmt.Errorf("%w: %s has %d bytes, and had %d when it was listed", ErrSource, list[i].path, n, list[i].size)
		}
		files[i] = provenance.FileDigest{Path: list[i].path, SHA256: [sha256.Size]byte(h.Sum(nil))}
		return f.unchanged()
	})
	if err != nil {
		return "", err
	}
	return provenance.PlaintextRoot(files)
}

// comparesPlaintext reports whether the policy wants the content compared with
// its plaintext root before any of it is used. K18.
func (a *artifact) comparesPlaintext() bool {
	return a.rule.Plaintext != nil && a.rule.Plaintext.Compare
}

// use registers a read of a part of the model. A root says nothing about parts.
func (m *Model) use(ctx context.Context) (_ context.Context, release func(), err error) {
	if m.comparesPlaintext() {
		return nil, nil, fmt.Errorf("%w: the policy compares the whole model with its plaintext root, so no part of it can be read; pull it", ErrConfig)
	}
	return m.enter(ctx)
}

// wantsAll refuses to extract some files where the root is of all.
func (m *Model) wantsAll(want []bool) error {
	if m.comparesPlaintext() && slices.Contains(want, false) {
		return fmt.Errorf("%w: the policy compares the whole model with its plaintext root, so all files must be extracted", ErrConfig)
	}
	return nil
}

// comparePlaintext reads what was staged once more and compares its root. What
// differs is not published.
func (e *extraction) comparePlaintext(ctx context.Context) error {
	if !e.comparesPlaintext() {
		return nil
	}
	size := e.content.index.SegmentSize
	if err := e.c.budget.borrow(ctx, size); err != nil {
		return err
	}
	defer e.c.budget.repay(size)
	buf := make([]byte, size)
	files := make([]provenance.FileDigest, len(e.content.files))
	for i, f := range e.content.files {
		h := digest.New()
		for off := int64(0); off < f.Size; off += size {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n := min(size, f.Size-off)
			if err := e.dir.ReadAt(e.staged[i], buf[:n], off); err != nil {
				return &Error{File: f.Path, Segment: -1, Err: err}
			}
			h.Write(buf[:n])
		}
		files[i] = provenance.FileDigest{Path: f.Path, SHA256: [sha256.Size]byte(h.Sum(nil))}
	}
	root, err := provenance.PlaintextRoot(files)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if !slices.Contains(e.report.Plaintexts, root) {
		return fmt.Errorf("%w: the files have the plaintext root %s, and its signer says %s", ErrDigest, root, e.report.Plaintexts)
	}
	return nil
}
