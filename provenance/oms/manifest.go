// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/modelsec/modelsec-go/provenance"
)

// PredicateType is that of the statements in signatures of version 1.0. Version
// 0.2 had another, and signed another encoding: it is refused.
const PredicateType = "https://model_signing/signature/v1.0"

const (
	methodFiles  = "files"
	methodShards = "shards"
	hashSHA256   = "sha256"
)

// wholeFile is the name that a model of one file had before version 1.0.1.
const wholeFile = "."

// maxPredicate is the bound of package provenance on the statement around it:
// some 25,000 files.
const maxPredicate = 4 << 20

// maxPath is what no system opens a longer path than.
const maxPath = 4096

// Manifest is what a signature says about a model.
type Manifest struct {
	// Name is what the signer called the model. It is not compared with anything.
	Name string
	// Root is the SHA-256 over the digests of Resources in their order.
	Root digest.Digest
	// Resources are the files, or stretches of them, in the order of the statement.
	Resources []Resource
	// ShardSize is the size in bytes of the shards that files were cut into. Zero
	// where they were hashed whole.
	ShardSize int64
	// AllowSymlinks says that links to files counted as the files.
	AllowSymlinks bool
	// IgnorePaths are the files and directories that were left out, besides those
	// of git and the signature itself.
	IgnorePaths []string
}

// Resource is one signed file, or a shard of one.
type Resource struct {
	// Path is below the model, with slashes. It is "." in older signatures of a
	// single file.
	Path string
	// Start and End are the shard's first byte and the one after its last. Both
	// are zero for a whole file.
	Start, End int64
	// Digest is the SHA-256 of the content.
	Digest digest.Digest
}

type subjectDocument struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

type statementDocument struct {
	Type          string            `json:"_type"`
	Subject       []subjectDocument `json:"subject"`
	PredicateType string            `json:"predicateType"`
	Predicate     json.RawMessage   `json:"predicate"`
}

// predicateDocument is read by the letter: a member that nobody knows could
// change what the others mean.
type predicateDocument struct {
	Resources     []json.RawMessage     `json:"resources"`
	Serialization serializationDocument `json:"serialization"`
}

// serializationDocument has its number as the reference implementation writes it,
// 1000000000.0.
type serializationDocument struct {
	Method        string   `json:"method"`
	HashType      string   `json:"hash_type"`
	ShardSize     *float64 `json:"shard_size,omitempty"`
	AllowSymlinks *bool    `json:"allow_symlinks"`
	IgnorePaths   []string `json:"ignore_paths,omitempty"`
}

// resourceDocument may have members that in-toto defines and OMS does not use.
type resourceDocument struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`
}

// ParseManifest reads the statement in a signature. It proves nothing: Verify
// calls it after the signature was verified. Errors wrap provenance.ErrFormat.
func ParseManifest(payload []byte) (*Manifest, error) {
	s, subjects, err := provenance.DecodeStatement(payload, nil)
	if err != nil {
		return nil, err
	}
	if s.PredicateType != PredicateType {
		return nil, formatError("predicate type %.100q, want %q", s.PredicateType, PredicateType)
	}
	var statement statementDocument
	if err := strictjson.UnmarshalLenient(payload, &statement, maxPredicate); err != nil {
		return nil, formatError("statement: %w", err)
	}
	m := &Manifest{Name: statement.Subject[0].Name, Root: subjects[0]}
	if m.Name == "" {
		return nil, formatError("the subject has no name")
	}
	var doc predicateDocument
	if err := strictjson.Unmarshal(s.Predicate, &doc, maxPredicate); err != nil {
		return nil, formatError("predicate: %w", err)
	}
	if err := m.setSerialization(doc.Serialization); err != nil {
		return nil, err
	}
	if len(doc.Resources) == 0 {
		return nil, formatError("no resources: an empty model cannot be signed")
	}
	for i, text := range doc.Resources {
		r, err := m.parseResource(text)
		if err != nil {
			return nil, formatError("resource %d: %w", i, err)
		}
		m.Resources = append(m.Resources, r)
	}
	if root := m.root(); root != m.Root {
		return nil, formatError("subject has digest %s, the resources have %s", m.Root, root)
	}
	if err := m.checkWhole(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Manifest) setSerialization(doc serializationDocument) error {
	switch {
	case doc.HashType != hashSHA256:
		return formatError("serialization: hash type %.100q is not supported, want %s", doc.HashType, hashSHA256)
	case doc.AllowSymlinks == nil:
		return formatError("serialization: allow_symlinks is missing")
	case doc.Method == methodFiles && doc.ShardSize == nil:
	case doc.Method == methodShards && doc.ShardSize != nil && *doc.ShardSize >= 1 && *doc.ShardSize <= 1<<53 && *doc.ShardSize == math.Trunc(*doc.ShardSize):
		m.ShardSize = int64(*doc.ShardSize)
	case doc.Method == methodFiles || doc.Method == methodShards:
		return formatError("serialization: shard_size must be a whole number of bytes for shards, and absent for files")
	default:
		return formatError("serialization: method %.100q, want %s or %s", doc.Method, methodFiles, methodShards)
	}
	for _, p := range doc.IgnorePaths {
		if err := checkPath(p); err != nil {
			return formatError("serialization: ignore_paths: %w", err)
		}
	}
	m.AllowSymlinks, m.IgnorePaths = *doc.AllowSymlinks, doc.IgnorePaths
	return nil
}

func (m *Manifest) parseResource(text []byte) (Resource, error) {
	var doc resourceDocument
	if err := strictjson.UnmarshalLenient(text, &doc, maxPredicate); err != nil {
		return Resource{}, err
	}
	// The reference implementation names shards after their size, against the
	// specification.
	sharded := fmt.Sprintf("%s-sharded-%d", hashSHA256, m.ShardSize)
	if doc.Algorithm != hashSHA256 && (m.ShardSize == 0 || doc.Algorithm != sharded) {
		return Resource{}, fmt.Errorf("algorithm %.100q, want %s as the serialization has it", doc.Algorithm, hashSHA256)
	}
	r := Resource{Path: doc.Name, Digest: digest.NewDigestFromEncoded(digest.SHA256, doc.Digest)}
	if err := r.Digest.Validate(); err != nil {
		return Resource{}, fmt.Errorf("digest %.100q: %w", doc.Digest, err)
	}
	if m.ShardSize > 0 {
		if err := r.cutRange(); err != nil {
			return Resource{}, err
		}
	}
	if r.Path == wholeFile {
		return r, nil
	}
	return r, checkPath(r.Path)
}

// cutRange takes the range off the end of a shard's name. File names may have
// colons too.
func (r *Resource) cutRange() error {
	name := r.Path
	for _, to := range []*int64{&r.End, &r.Start} {
		i := strings.LastIndexByte(r.Path, ':')
		n, err := strconv.ParseInt(r.Path[i+1:], 10, 64)
		if i < 0 || err != nil || n < 0 || strconv.FormatInt(n, 10) != r.Path[i+1:] {
			return fmt.Errorf("name %.100q, want path:start:end", name)
		}
		r.Path, *to = r.Path[:i], n
	}
	return nil
}

// checkWhole wants every file once, and all of it.
func (m *Manifest) checkWhole() error {
	byPath := slices.Clone(m.Resources)
	slices.SortFunc(byPath, func(a, b Resource) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), cmp.Compare(a.Start, b.Start))
	})
	for i, r := range byPath {
		var next *Resource
		if i+1 < len(byPath) && byPath[i+1].Path == r.Path {
			next = &byPath[i+1]
		}
		first := i == 0 || byPath[i-1].Path != r.Path
		switch {
		case r.Path == wholeFile && (byPath[0].Path != wholeFile || byPath[len(byPath)-1].Path != wholeFile):
			return formatError("%q stands for a model of one file, and there are others", r.Path)
		case m.ShardSize == 0 && next != nil:
			return formatError("file %.200q is listed twice", r.Path)
		case m.ShardSize == 0:
		case first && r.Start != 0:
			return formatError("file %.200q has no shard at 0", r.Path)
		case r.End <= r.Start || r.End-r.Start > m.ShardSize, next != nil && r.End-r.Start != m.ShardSize:
			return formatError("file %.200q has a shard from %d to %d, shards have %d bytes", r.Path, r.Start, r.End, m.ShardSize)
		case next != nil && next.Start != r.End:
			return formatError("file %.200q has shards that end at %d and start at %d", r.Path, r.End, next.Start)
		}
	}
	return nil
}

// root is the digest over all digests, in the order of the statement: tools do
// not agree on how to sort.
func (m *Manifest) root() digest.Digest {
	h := sha256.New()
	for _, r := range m.Resources {
		sum, _ := hex.DecodeString(r.Digest.Encoded()) // validated
		h.Write(sum)
	}
	return digest.NewDigest(digest.SHA256, h)
}

// encode writes a manifest of whole files as a statement.
func (m *Manifest) encode() ([]byte, error) {
	doc := predicateDocument{Serialization: serializationDocument{Method: methodFiles, HashType: hashSHA256,
		AllowSymlinks: &m.AllowSymlinks, IgnorePaths: m.IgnorePaths}}
	for _, r := range m.Resources {
		text, err := json.Marshal(resourceDocument{Name: r.Path, Algorithm: hashSHA256, Digest: r.Digest.Encoded()})
		if err != nil {
			return nil, err
		}
		doc.Resources = append(doc.Resources, text)
	}
	predicate, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return json.Marshal(statementDocument{Type: "https://in-toto.io/Statement/v1",
		Subject:       []subjectDocument{{Name: m.Name, Digest: map[string]string{hashSHA256: m.Root.Encoded()}}},
		PredicateType: PredicateType, Predicate: predicate})
}

// checkPath wants the one spelling of a path below the model.
func checkPath(p string) error {
	if len(p) > maxPath {
		return fmt.Errorf("path of %d bytes, limit %d", len(p), maxPath)
	}
	if !fs.ValidPath(p) || p == "." {
		return fmt.Errorf("%.100q is no path below the model: want it relative and clean, with slashes, in UTF-8", p)
	}
	return nil
}

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: model signature: %w", provenance.ErrFormat, fmt.Errorf(format, args...))
}
