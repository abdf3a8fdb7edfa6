// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package index encodes and checks the index layer of an artifact: the list
// of layers, files and segment digests that FORMAT.md §3 to §5 define.
//
// Everything a Parse accepts has been checked against every rule of those
// sections, so that the code that moves bytes can take geometry for granted.
// The package does no input or output and knows no keys.
package index

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
)

// ErrFormat is wrapped by every error about an index that breaks a rule.
var ErrFormat = errors.New("index format")

// Bounds of FORMAT.md §11. Each is reached long after the 3.2 TB that one
// manifest can hold, and each bounds an allocation.
const (
	MaxSize      = 64 << 20  // whole index: 2 M segments and a full header
	maxHeader    = 16 << 20  // 65,536 files with long paths
	maxFiles     = 65_536    // a model with more is a dataset
	maxRuns      = 131_072   // two for each file
	maxLayers    = 4_096     // what registries accept in a manifest
	maxLayerSize = 1 << 50   // keeps every sum in 64 bits
	digestSize   = 32        // SHA-256
	hexHeader    = 2 * 74    // a FLOE header in hex
	maxSealed    = maxHeader // base64 of the files of the encrypted profile
)

// Profile says whether the layers hold files or ciphertext.
type Profile string

// The two profiles of FORMAT.md §1.
const (
	Plain     Profile = "plain"
	Encrypted Profile = "encrypted"
)

// Layer is one content layer as the manifest lists it.
type Layer struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"`
}

// Encryption is the clear part of what an encrypted index says about keys.
// FORMAT.md §6.
type Encryption struct {
	ArtifactID   string   `json:"artifactId"`
	Commitment   string   `json:"commitment"`
	MinWrapClass string   `json:"minWrapClass"`
	Headers      []string `json:"headers"`
	Sealed       Bytes    `json:"sealed"`
}

// Header is the JSON part of the index. FORMAT.md §4.
type Header struct {
	FormatVersion int         `json:"formatVersion"`
	Profile       Profile     `json:"profile"`
	SegmentSize   int64       `json:"segmentSize"`
	Layers        []Layer     `json:"layers"`
	Files         []File      `json:"files,omitempty"`
	Encryption    *Encryption `json:"encryption,omitempty"`
}

// Index is a checked header with the digest of every segment.
type Index struct {
	Header
	geometry []Geometry
	first    []int64 // number of segments before each layer
	digests  []byte
}

// New checks a header, and the digests of all segments in order, and makes an
// index of them. It keeps digests.
func New(h Header, digests []byte) (*Index, error) {
	x := &Index{Header: h, digests: digests}
	if err := x.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return x, nil
}

// Parse reads an encoded index. It keeps b.
func Parse(b []byte) (*Index, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrFormat, len(b), MaxSize)
	}
	if len(b) < 8 {
		return nil, fmt.Errorf("%w: %d bytes are too few for a header length", ErrFormat, len(b))
	}
	n := binary.LittleEndian.Uint64(b)
	if n < 2 || n > maxHeader || n > uint64(len(b)-8) {
		return nil, fmt.Errorf("%w: header of %d bytes in an index of %d", ErrFormat, n, len(b))
	}
	var h Header
	if err := decode(b[8:8+n], &h); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrFormat, err)
	}
	return New(h, b[8+n:])
}

// Encode is the inverse of Parse.
func (x *Index) Encode() ([]byte, error) {
	h, err := json.Marshal(x.Header)
	if err != nil {
		return nil, err
	}
	if len(h) > maxHeader || 8+len(h)+len(x.digests) > MaxSize {
		return nil, fmt.Errorf("%w: %d bytes of header and %d of digests are over the limit", ErrFormat, len(h), len(x.digests))
	}
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(h)+len(x.digests)), uint64(len(h)))
	return append(append(b, h...), x.digests...), nil
}

func (x *Index) check() error {
	if x.FormatVersion != 1 {
		return fmt.Errorf("version %d, this reader knows 1", x.FormatVersion)
	}
	if x.Profile != Plain && x.Profile != Encrypted {
		return fmt.Errorf("profile %q", x.Profile)
	}
	if !slices.Contains(segmentSizes, x.SegmentSize) {
		return fmt.Errorf("segment size %d, want one of %d", x.SegmentSize, segmentSizes)
	}
	if len(x.Layers) == 0 || len(x.Layers) > maxLayers {
		return fmt.Errorf("%d layers, want 1 to %d", len(x.Layers), maxLayers)
	}
	if err := x.measure(); err != nil {
		return err
	}
	switch {
	case x.Profile == Plain && x.Encryption != nil:
		return errors.New("encryption in the plain profile")
	case x.Profile == Plain:
		return CheckFiles(x.Files, x.geometry)
	case x.Files != nil:
		return errors.New("clear file list in the encrypted profile")
	case x.Encryption == nil:
		return errors.New("no encryption section in the encrypted profile")
	}
	return x.checkEncryption()
}

// measure computes where every segment lies. FORMAT.md §5.
func (x *Index) measure() error {
	x.geometry = make([]Geometry, len(x.Layers))
	x.first = make([]int64, len(x.Layers))
	var total int64
	for i, l := range x.Layers {
		if err := CheckDigest(l.Digest); err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		g, err := NewGeometry(x.Profile, l.Size, x.SegmentSize)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		x.geometry[i], x.first[i] = g, total
		total += g.Count()
	}
	if int64(len(x.digests)) != total*digestSize {
		return fmt.Errorf("%d bytes of digests, want %d for %d segments", len(x.digests), total*digestSize, total)
	}
	return nil
}

func (x *Index) checkEncryption() error {
	e := x.Encryption
	if !isHex(e.ArtifactID, 32) || !isHex(e.Commitment, 64) {
		return errors.New("artifactId or commitment is not 16 or 32 bytes of lower-case hex")
	}
	if e.MinWrapClass != "post-quantum" && e.MinWrapClass != "classical" {
		return fmt.Errorf("minWrapClass %q", e.MinWrapClass)
	}
	if len(e.Headers) != len(x.Layers) {
		return fmt.Errorf("%d FLOE headers for %d layers", len(e.Headers), len(x.Layers))
	}
	for i, h := range e.Headers {
		if !isHex(h, hexHeader) {
			return fmt.Errorf("FLOE header of layer %d is not 74 bytes of lower-case hex", i)
		}
	}
	if len(e.Sealed) < 12+16 || len(e.Sealed) > maxSealed {
		return fmt.Errorf("sealed section of %d bytes", len(e.Sealed))
	}
	return nil
}

// Geometry says how layer i is cut into segments.
func (x *Index) Geometry(i int) Geometry { return x.geometry[i] }

// Digest is the SHA-256 of the stored bytes of segment k of layer i. The
// caller must not change it.
func (x *Index) Digest(i int, k int64) []byte {
	at := (x.first[i] + k) * digestSize
	return x.digests[at : at+digestSize : at+digestSize]
}

// Digests are those of all segments of layer i, in order. The caller must not
// change them.
func (x *Index) Digests(i int) []byte {
	at, n := x.first[i]*digestSize, x.geometry[i].Count()*digestSize
	return x.digests[at : at+n : at+n]
}

// Ordinal counts segments over all layers: the number of segment k of layer i.
func (x *Index) Ordinal(i int, k int64) int64 { return x.first[i] + k }

// Segments is the number of segments of all layers.
func (x *Index) Segments() int64 { return int64(len(x.digests) / digestSize) }

// SealedFiles is the plaintext of the sealed section. FORMAT.md §6.
type SealedFiles struct {
	Files []File `json:"files"`
}

// ParseSealed reads the decrypted file list of an encrypted index and checks
// it against the geometry.
func (x *Index) ParseSealed(b []byte) ([]File, error) {
	var s SealedFiles
	if err := decode(b, &s); err != nil {
		return nil, fmt.Errorf("%w: sealed section: %w", ErrFormat, err)
	}
	if err := CheckFiles(s.Files, x.geometry); err != nil {
		return nil, fmt.Errorf("%w: sealed section: %w", ErrFormat, err)
	}
	return s.Files, nil
}

// ParseFiles reads the file list of a grant (FORMAT.md §8.6), which names some
// files of the artifact, and checks it against the geometry.
func (x *Index) ParseFiles(b []byte) ([]File, error) {
	var s SealedFiles
	if err := decode(slices.Concat([]byte(`{"files":`), b, []byte(`}`)), &s); err != nil {
		return nil, fmt.Errorf("%w: file list: %w", ErrFormat, err)
	}
	if err := x.CheckSome(s.Files); err != nil {
		return nil, err
	}
	return s.Files, nil
}

// CheckSome holds files of one or more such lists to the geometry and to each
// other.
func (x *Index) CheckSome(files []File) error {
	if err := checkSome(files, x.geometry); err != nil {
		return fmt.Errorf("%w: file list: %w", ErrFormat, err)
	}
	return nil
}

// CheckDigest refuses every digest but SHA-256 in lower-case hex.
func CheckDigest(d digest.Digest) error {
	const prefix = "sha256:"
	s := string(d)
	if len(s) != len(prefix)+64 || s[:len(prefix)] != prefix || !isHex(s[len(prefix):], 64) {
		return fmt.Errorf("digest %q is not sha256 and 64 lower-case hex digits", truncate(s))
	}
	return nil
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// truncate keeps attacker-chosen text out of logs beyond what helps to find it.
func truncate(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
