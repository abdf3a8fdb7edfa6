// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/registry"
)

// content is the verified description of an artifact's bytes, and where they
// can be had.
type content struct {
	c       *Client
	store   registry.Store
	host    string
	sources *sources
	lanes   *digest.Lanes
	index   *index.Index
	layers  []ocispec.Descriptor
	files   []index.File
	partial bool // files are not all of the artifact
	pieces  [][]index.Piece
	openers []*encrypt.PartOpener // nil in the plain profile
	held    int64                 // bytes of the client's budget
	closer  io.Closer             // of a private copy; nil: none
}

func newContent(a *artifact, store registry.Store, layers []ocispec.Descriptor) *content {
	return &content{c: a.c, store: store, host: a.host, sources: newSources(store, a.host), layers: layers}
}

// start makes sure that segments are hashed right before any is.
func (t *content) start() (err error) {
	t.lanes, err = digest.NewLanes(digest.Auto)
	return err
}

// maxStored is the size of the largest stored segment.
func (t *content) maxStored() int64 { return t.index.SegmentSize + index.SealOverhead }

// decrypt decrypts a segment whose digest was checked into plain, which is other
// memory: GCM would have to move it first. In the plain profile it is the
// content.
func (t *content) decrypt(layer int, k int64, stored, plain []byte) ([]byte, error) {
	if t.openers == nil {
		return stored, nil
	}
	// The digest was that of the publisher's ciphertext, so a failure here is
	// not damage on the way: asking again cannot cure it.
	plaintext, err := t.openers[layer].OpenSegment(plain[:0], k, stored)
	if err != nil {
		return nil, t.segmentError(layer, k, err)
	}
	return plaintext, nil
}

func (t *content) checkDigest(layer int, k int64, stored []byte) error {
	sum := digest.Sum(stored)
	if !bytes.Equal(sum[:], t.index.Digest(layer, k)) {
		return t.mismatch(layer, k, sum)
	}
	return nil
}

func (t *content) mismatch(layer int, k int64, sum [digest.Size]byte) error {
	return t.segmentError(layer, k, fmt.Errorf("%w: want sha256:%x, got sha256:%x", ErrDigest, t.index.Digest(layer, k), sum))
}

// checkHeader compares the FLOE header at the start of a layer with the copy
// in the index, which is the one in use. K38.
func (t *content) checkHeader(layer int, body io.Reader) error {
	want, err := hex.DecodeString(t.index.Encryption.Headers[layer])
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(body, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return t.layerError(layer, fmt.Errorf("%w: the FLOE header is not the one in the index", ErrDigest))
	}
	return nil
}

// segmentError names the file, segment, layer and host of a failure.
func (t *content) segmentError(layer int, k int64, err error) error {
	e := t.layerError(layer, err)
	e.Segment = k
	offset, length := t.index.Geometry(layer).Range(k)
	if pieces := t.overlap(layer, offset, length); len(pieces) > 0 {
		e.File = t.files[pieces[0].File].Path
	}
	return e
}

func (t *content) layerError(layer int, err error) *Error {
	e := &Error{Host: t.host, Segment: -1, Digest: t.layers[layer].Digest, Err: err}
	if len(t.pieces[layer]) == 1 {
		e.File = t.files[t.pieces[layer][0].File].Path
	}
	return e
}

// overlap lists the pieces of files in a stretch of a layer's content, each
// cut to it. Empty pieces are not listed.
func (t *content) overlap(layer int, offset, length int64) []index.Piece {
	pieces := t.pieces[layer]
	// The pieces are sorted and do not overlap: skip those that end before.
	low, high := 0, len(pieces)
	for low < high {
		mid := (low + high) / 2
		if pieces[mid].LayerOffset+pieces[mid].Length <= offset {
			low = mid + 1
		} else {
			high = mid
		}
	}
	var out []index.Piece
	for _, p := range pieces[low:] {
		if p.LayerOffset >= offset+length {
			break
		}
		if skip := offset - p.LayerOffset; skip > 0 {
			p.LayerOffset, p.FileOffset, p.Length = offset, p.FileOffset+skip, p.Length-skip
		}
		p.Length = min(p.Length, offset+length-p.LayerOffset)
		if p.Length > 0 {
			out = append(out, p)
		}
	}
	return out
}

// segmentsOf lists the segments of every layer that hold bytes of the files
// that want admits, in order.
func (t *content) segmentsOf(want func(file int) bool) [][]int64 {
	out := make([][]int64, len(t.layers))
	for layer, pieces := range t.pieces {
		g := t.index.Geometry(layer)
		next := int64(0)
		for _, p := range pieces {
			if p.Length == 0 || !want(p.File) {
				continue
			}
			for k := max(next, g.At(p.LayerOffset)); k <= g.At(p.LayerOffset+p.Length-1); k++ {
				out[layer] = append(out[layer], k)
				next = k + 1
			}
		}
	}
	return out
}

// curable reports whether asking again may give another answer.
func curable(err error) bool {
	return errors.Is(err, ErrDigest) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || temporary(err)
}
