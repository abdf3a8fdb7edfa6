// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// PredicatePlaintext says what the files of an artifact are once they are
// decrypted (FORMAT.md §9.4).
const PredicatePlaintext = "https://modelsec.github.io/plaintext/v1"

// Plaintext names the content of an artifact whatever it is encrypted under, so
// that what a builder attested before encryption, and what a denial list says,
// finds it again.
type Plaintext struct {
	// Root is the digest of the list of files: see PlaintextRoot.
	Root digest.Digest
	// Manifest is that of the plain artifact that a builder attested. May be empty.
	Manifest digest.Digest
}

// FileDigest is one file of a PlaintextRoot.
type FileDigest struct {
	// Path is below the model, with slashes.
	Path string
	// SHA256 is of the whole content.
	SHA256 [sha256.Size]byte
}

// PlaintextRoot is the SHA-256 of the list of files, sorted by the bytes of
// their paths, in the form that sha256sum prints: 64 hexadecimal digits, two
// spaces, the path and a line feed for each. Paths with control characters or a
// backslash, repeated ones and an empty list are errors.
func PlaintextRoot(files []FileDigest) (digest.Digest, error) {
	if len(files) == 0 {
		return "", errors.New("plaintext root of no files")
	}
	files = slices.SortedFunc(slices.Values(files), func(a, b FileDigest) int { return cmp.Compare(a.Path, b.Path) })
	var list bytes.Buffer
	for i, f := range files {
		if f.Path == "" || bytes.ContainsFunc([]byte(f.Path), func(r rune) bool { return r < ' ' || r == '\\' || r == 0x7f }) {
			return "", fmt.Errorf("plaintext root: path %q has no place in the list", clip(f.Path))
		}
		if i > 0 && files[i-1].Path == f.Path {
			return "", fmt.Errorf("plaintext root: path %q twice", clip(f.Path))
		}
		fmt.Fprintf(&list, "%s  %s\n", hex.EncodeToString(f.SHA256[:]), f.Path)
	}
	return digest.FromBytes(list.Bytes()), nil
}

type plaintextDocument struct {
	Root     digest.Digest  `json:"root"`
	Manifest *digest.Digest `json:"manifest,omitempty"`
}

// NewPlaintext returns the plaintext statement.
func NewPlaintext(p Plaintext) (Statement, error) {
	if err := p.check(); err != nil {
		return Statement{}, formatError("plaintext: %w", err)
	}
	doc := plaintextDocument{Root: p.Root}
	if p.Manifest != "" {
		doc.Manifest = &p.Manifest
	}
	predicate, err := json.Marshal(doc)
	if err != nil {
		return Statement{}, err
	}
	return Statement{PredicateType: PredicatePlaintext, Predicate: predicate}, nil
}

// ParsePlaintext reads a plaintext statement.
func ParsePlaintext(s Statement) (Plaintext, error) {
	if s.PredicateType != PredicatePlaintext {
		return Plaintext{}, formatError("predicate type %q, want %q", clip(s.PredicateType), PredicatePlaintext)
	}
	var doc plaintextDocument
	if err := strictjson.Unmarshal(s.Predicate, &doc, maxStatement); err != nil {
		return Plaintext{}, formatError("plaintext: %w", err)
	}
	p := Plaintext{Root: doc.Root}
	if doc.Manifest != nil {
		if p.Manifest = *doc.Manifest; p.Manifest == "" {
			return Plaintext{}, formatError("plaintext: manifest is empty")
		}
	}
	if err := p.check(); err != nil {
		return Plaintext{}, formatError("plaintext: %w", err)
	}
	return p, nil
}

func (p Plaintext) check() error {
	if err := checkDigest(p.Root); err != nil {
		return fmt.Errorf("root: %w", err)
	}
	if p.Manifest != "" {
		if err := checkDigest(p.Manifest); err != nil {
			return fmt.Errorf("manifest: %w", err)
		}
	}
	return nil
}

// names reports whether d is one of the digests that stand for the content.
func (p Plaintext) names(d digest.Digest) bool {
	return d != "" && (d == p.Root || d == p.Manifest)
}

// PlaintextRule says who binds an artifact to its plaintext (POLICY.md §1.7).
type PlaintextRule struct {
	// Signers may sign plaintext statements, at least one.
	Signers []Principal
	// Compare demands that the content is compared with the root that they name,
	// file by whole file, before any of it is released (RULES K18). Default:
	// their word is taken.
	Compare bool
}

func (c *compiled) plaintext(r *PlaintextRule) error {
	if r == nil {
		return nil
	}
	if len(r.Signers) == 0 {
		return errors.New("no signers: name at least one principal")
	}
	return c.signers(r.Signers)
}
