// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

// indexFile is where tools that unpack artifacts put the index of modelsec, which
// describes the artifact and is no file of the model (FORMAT.md §2.4).
const indexFile = ".modelsec.index"

// SignOptions say what the model is. Nil is for all files of a directory.
type SignOptions struct {
	// File is the path of a model that is a single file. Default: all files.
	File string
	// IgnorePaths are files and directories that do not belong to the model, as
	// paths below it without patterns. They are recorded, with .git,
	// .gitattributes, .github, .gitignore, model.sig and .modelsec.index.
	IgnorePaths []string
	// AllowSymlinks signs what links to files point to. Default: a link is an
	// error. The specification wants to do away with links.
	AllowSymlinks bool
}

// Sign signs the files of a model, whole and by SHA-256, and returns the bundle
// to be written as model.sig. name is that of the model's directory or file; it
// is shown and never compared. Every file is read once. An empty model is an
// error, as is a file whose name is not UTF-8.
//
// Keys sign with KeySigner and CertificateSigner, identities with the Signer of
// provenance/sigstore. That of provenance.KeySigner names its key in another way
// than Model Signing, and other tools refuse the result.
func Sign(ctx context.Context, s provenance.Signer, fsys fs.FS, name string, o *SignOptions) (*provenance.Bundle, error) {
	if o == nil {
		o = &SignOptions{}
	}
	t, err := o.tree(ctx, fsys)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	paths := slices.Sorted(maps.Keys(t.sizes))
	stretches := make([]stretch, len(paths))
	for i, p := range paths {
		stretches[i].path = p
	}
	digests, err := t.hashAll(ctx, stretches)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	files := make(map[string]digest.Digest, len(paths))
	for i, p := range paths {
		files[p] = digests[i]
	}
	if o.File != "" {
		files = map[string]digest.Digest{path.Base(o.File): digests[0]}
	}
	return sign(ctx, s, name, files, o)
}

// SignDigests is Sign for files whose SHA-256 digests are known, by path. Of
// the options IgnorePaths counts.
func SignDigests(ctx context.Context, s provenance.Signer, name string, files map[string]digest.Digest, o *SignOptions) (*provenance.Bundle, error) {
	if o == nil {
		o = &SignOptions{}
	}
	for p, d := range files {
		if err := checkPath(p); err != nil {
			return nil, fmt.Errorf("model: %w", err)
		}
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, fmt.Errorf("model: %q: digest %.100q, want sha256", p, d)
		}
	}
	if err := checkIgnorePaths(o.IgnorePaths); err != nil {
		return nil, err
	}
	return sign(ctx, s, name, files, o)
}

func sign(ctx context.Context, s provenance.Signer, name string, files map[string]digest.Digest, o *SignOptions) (*provenance.Bundle, error) {
	if s == nil {
		return nil, errors.New("no signer")
	}
	if name == "" {
		return nil, errors.New("the model has no name: want that of its directory")
	}
	if len(files) == 0 {
		return nil, errors.New("model: no files to sign")
	}
	m := &Manifest{Name: name, AllowSymlinks: o.AllowSymlinks}
	m.IgnorePaths = append(slices.Clone(alwaysIgnored), indexFile)
	for _, p := range o.IgnorePaths {
		if !slices.Contains(m.IgnorePaths, p) {
			m.IgnorePaths = append(m.IgnorePaths, p)
		}
	}
	// Specification §5.2.1: by code point, which is the order of UTF-8.
	for _, p := range slices.Sorted(maps.Keys(files)) {
		m.Resources = append(m.Resources, Resource{Path: p, Digest: files[p]})
	}
	m.Root = m.root()
	payload, err := m.encode()
	if err != nil {
		return nil, err
	}
	// What readers will refuse is not worth a signature.
	if _, err := ParseManifest(payload); err != nil {
		return nil, err
	}
	return s.Sign(ctx, provenance.PayloadType, payload)
}

func (o *SignOptions) tree(ctx context.Context, fsys fs.FS) (*tree, error) {
	if err := checkIgnorePaths(o.IgnorePaths); err != nil {
		return nil, err
	}
	if o.File != "" {
		return oneFile(fsys, o.File, o.AllowSymlinks)
	}
	return list(ctx, fsys, append(slices.Clone(o.IgnorePaths), indexFile), o.AllowSymlinks, nil)
}

// checkIgnorePaths refuses patterns, which readers would take for names
// (specification §6.2.1).
func checkIgnorePaths(paths []string) error {
	for _, p := range paths {
		if err := checkPath(p); err != nil {
			return fmt.Errorf("IgnorePaths: %w", err)
		}
		if strings.ContainsAny(p, "*?[") {
			return fmt.Errorf("IgnorePaths: %q is a pattern, want a path", p)
		}
	}
	return nil
}
