// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/provenance"
)

// VerifyOptions say more about whom to believe and what the model is. Nil is for
// a directory that a key or a certificate was to sign.
type VerifyOptions struct {
	// Signers are who may have signed, any of them. Of identities it must name
	// one: that a service knows a signer says nothing about who he is. Default:
	// every key that the Verifier believes, and no identity.
	Signers []provenance.Principal
	// File is the path of a model that is a single file. Default: all files.
	File string
	// IgnorePaths are files and directories that may be there unsigned, as paths
	// below the model, besides those that the signature names, .git,
	// .gitattributes, .github, .gitignore and model.sig. Signatures before version
	// 1.1 name none.
	IgnorePaths []string
}

// Result is what Verify found.
type Result struct {
	// Manifest is the list of what was signed. Every file of it is there and has
	// its digest.
	Manifest *Manifest
	// Verified is what the Verifier proved about the signature.
	Verified *provenance.Verified
	// Unsigned are files and directories that nobody signed and that were not
	// looked into, sorted: ignored paths, and empty files where the signature is of
	// shards, which cannot tell of them.
	Unsigned []string
}

// MismatchError says that the model is not the one that was signed. Paths are
// sorted.
type MismatchError struct {
	// Missing were signed and are not there.
	Missing []string
	// Unsigned are there and were neither signed nor ignored.
	Unsigned []string
	// Changed have other content. Content is read only where every file is there
	// and has the length that is known of shards.
	Changed []string
}

// Error names some files of each kind.
func (e *MismatchError) Error() string {
	var parts []string
	for _, kind := range []struct {
		what  string
		paths []string
	}{{"missing", e.Missing}, {"not signed", e.Unsigned}, {"changed", e.Changed}} {
		if n := len(kind.paths); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s: %s", n, kind.what, some(kind.paths)))
		}
	}
	return "model is not the one that was signed: " + strings.Join(parts, "; ")
}

// found sorts the lists and reports whether there is anything in them.
func (e *MismatchError) found() bool {
	for _, paths := range []*[]string{&e.Missing, &e.Unsigned, &e.Changed} {
		slices.Sort(*paths)
		*paths = slices.Compact(*paths)
	}
	return len(e.Missing)+len(e.Unsigned)+len(e.Changed) > 0
}

// some quotes the first paths of a list.
func some(paths []string) string {
	const most = 3
	quoted := make([]string, 0, most+1)
	for _, p := range paths[:min(len(paths), most)] {
		quoted = append(quoted, fmt.Sprintf("%.200q", p))
	}
	if len(paths) > most {
		quoted = append(quoted, "…")
	}
	return strings.Join(quoted, ", ")
}

// Verify proves a signature and that fsys holds the model that was signed:
// exactly the files listed, each with its digest. Every file is read once.
//
// A directory that others can write to may change afterwards; the file system of
// an opened model cannot. Errors wrap provenance.ErrFormat,
// provenance.ErrSignature or fs errors, or are a *MismatchError.
func Verify(ctx context.Context, v provenance.Verifier, b *provenance.Bundle, fsys fs.FS, o *VerifyOptions) (*Result, error) {
	if o == nil {
		o = &VerifyOptions{}
	}
	if b == nil {
		return nil, formatError("no bundle")
	}
	// Specification §4.1: an identity without a log entry is no method of signing.
	if material := b.Material(); len(material.Certificate) > 0 && len(material.LogEntries) == 0 {
		return nil, formatError("keyless signature without a log entry")
	}
	verified, err := v.Verify(ctx, b)
	if err != nil {
		return nil, err
	}
	if err := o.admit(verified); err != nil {
		return nil, err
	}
	m, err := ParseManifest(b.Envelope().Payload)
	if err != nil {
		return nil, err
	}
	unsigned, err := m.check(ctx, fsys, o)
	if err != nil {
		return nil, err
	}
	return &Result{Manifest: m, Verified: verified, Unsigned: unsigned}, nil
}

// admit holds the signer to those that were named.
func (o *VerifyOptions) admit(v *provenance.Verified) error {
	if len(o.Signers) == 0 {
		if v.Signer.Key == "" {
			return fmt.Errorf("%w: signed by %s, and Signers names nobody", provenance.ErrSignature, v.Signer)
		}
		return nil
	}
	var reasons error
	for _, p := range o.Signers {
		err := p.Signed(v, time.Now())
		if err == nil {
			return nil
		}
		reasons = errors.Join(reasons, err)
	}
	return fmt.Errorf("%w: signed by none of Signers: %w", provenance.ErrSignature, reasons)
}

// check compares a model with the manifest and returns what nobody signed.
func (m *Manifest) check(ctx context.Context, fsys fs.FS, o *VerifyOptions) ([]string, error) {
	t, err := m.tree(ctx, fsys, o)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	mismatch := &MismatchError{}
	at := func(r Resource) string {
		if o.File != "" {
			return o.File
		}
		return r.Path
	}
	lengths := make(map[string]int64) // of the files as they were signed, in shards
	for _, r := range m.Resources {
		lengths[at(r)] = max(lengths[at(r)], r.End)
	}
	for p, length := range lengths {
		size, ok := t.sizes[p]
		switch {
		case !ok:
			mismatch.Missing = append(mismatch.Missing, p)
		case m.ShardSize > 0 && size != length:
			mismatch.Changed = append(mismatch.Changed, p)
		}
	}
	for p, size := range t.sizes {
		_, listed := lengths[p]
		switch {
		case listed:
		case m.ShardSize > 0 && size == 0:
			t.ignored = append(t.ignored, p)
		default:
			mismatch.Unsigned = append(mismatch.Unsigned, p)
		}
	}
	if mismatch.found() {
		return nil, mismatch
	}
	stretches := make([]stretch, len(m.Resources))
	for i, r := range m.Resources {
		stretches[i] = stretch{path: at(r), start: r.Start, end: r.End, last: r.End == lengths[at(r)]}
	}
	digests, err := t.hashAll(ctx, stretches)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	for i, d := range digests {
		if d != m.Resources[i].Digest {
			mismatch.Changed = append(mismatch.Changed, stretches[i].path)
		}
	}
	if mismatch.found() {
		return nil, mismatch
	}
	slices.Sort(t.ignored)
	return t.ignored, nil
}

// tree lists the model that the options name.
func (m *Manifest) tree(ctx context.Context, fsys fs.FS, o *VerifyOptions) (*tree, error) {
	single := m.Resources[0].Path == wholeFile
	if o.File == "" {
		if single {
			return nil, errors.New("the signature is of a single file: name it with File")
		}
		for _, p := range o.IgnorePaths {
			if err := checkPath(p); err != nil {
				return nil, fmt.Errorf("IgnorePaths: %w", err)
			}
		}
		return list(ctx, fsys, append(slices.Clone(m.IgnorePaths), o.IgnorePaths...), m.AllowSymlinks, m.Resources)
	}
	for _, r := range m.Resources {
		if !single && r.Path != path.Base(o.File) {
			return nil, fmt.Errorf("the signature is of %q, and the model is the file %q", r.Path, o.File)
		}
	}
	return oneFile(fsys, o.File, m.AllowSymlinks)
}
