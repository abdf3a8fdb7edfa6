// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
)

// missing returns the wanted segments that the staging directory does not
// hold, after it proved every byte of the others. Nothing that an earlier
// process noted is believed: a segment must have its attested digest, a decrypted
// one after it was encrypted again as it had been stored. K11.
func (e *extraction) missing(ctx context.Context, wanted [][]int64) ([][]int64, error) {
	size := e.content.maxStored()
	if err := e.c.budget.borrow(ctx, size); err != nil {
		return nil, err
	}
	defer e.c.budget.repay(size)
	buf := make([]byte, size)
	out := make([][]int64, len(wanted))
	for layer, segments := range wanted {
		for _, k := range segments {
			if err := ctx.Err(); err != nil {
				return nil, context.Cause(ctx)
			}
			g := e.content.index.Geometry(layer)
			start, length := g.Range(k)
			pieces := e.content.overlap(layer, start, length)
			if _, n := g.Stored(k); !e.proven(layer, k, buf[:n], pieces) {
				out[layer] = append(out[layer], k)
				continue
			}
			if err := e.complete(pieces); err != nil {
				return nil, err
			}
			e.op.found.Add(length)
		}
	}
	return out, nil
}

// proven reads a segment back and checks it. A segment that is partly of files
// that are not wanted, or of archive framing, cannot be read back whole and is
// fetched again.
func (e *extraction) proven(layer int, k int64, stored []byte, pieces []index.Piece) bool {
	start, length := e.content.index.Geometry(layer).Range(k)
	content := stored
	if e.content.openers != nil {
		content = stored[encrypt.PlaintextOffset:][:length]
	}
	covered := int64(0)
	for _, p := range pieces {
		if !e.want[p.File] {
			return false
		}
		at := p.LayerOffset - start
		if err := e.dir.ReadAt(e.staged[p.File], content[at:at+p.Length], p.FileOffset); err != nil {
			return false
		}
		covered += p.Length
	}
	if covered != length {
		return false
	}
	if e.content.openers != nil {
		var frame [encrypt.SegmentOverhead]byte
		if e.dir.Record(e.content.index.Ordinal(layer, k), frame[:]) != nil || e.content.openers[layer].RestoreSegment(stored, k, frame) != nil {
			return false
		}
	}
	return e.content.checkDigest(layer, k, stored) == nil
}

// note keeps of a segment what missing will need to encrypt it again.
func (e *extraction) note(layer int, k int64, stored []byte) error {
	frame := encrypt.Frame(stored)
	return e.dir.PutRecord(e.content.index.Ordinal(layer, k), frame[:])
}
