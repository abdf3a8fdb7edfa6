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
// process noted is believed: a plain segment must have its attested digest, a
// decrypted one a MAC that only a holder of the data key can make. K11.
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
			start, length := e.content.index.Geometry(layer).Range(k)
			pieces := e.content.overlap(layer, start, length)
			if !e.proven(layer, k, buf[:length], pieces) {
				out[layer] = append(out[layer], k)
				continue
			}
			if err := e.complete(pieces); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// proven reads a segment back and checks it. A segment that is partly of files
// that are not wanted, or of archive framing, cannot be read back whole and is
// fetched again.
func (e *extraction) proven(layer int, k int64, content []byte, pieces []index.Piece) bool {
	start, _ := e.content.index.Geometry(layer).Range(k)
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
	if covered != int64(len(content)) {
		return false
	}
	if e.prover == nil {
		return e.content.checkDigest(layer, k, content) == nil
	}
	n := e.content.index.Ordinal(layer, k)
	proof := make([]byte, encrypt.ProofSize)
	return e.dir.Record(n, proof) == nil && e.prover.Check(uint64(n), content, proof)
}

// newProver returns nil where bytes on the disk prove themselves. Without the
// data key, that is with grants of some files, there is nothing to prove by: a
// key of the moment makes everything be fetched again.
func (m *Model) newProver() (*encrypt.Prover, error) {
	if m.content.openers == nil {
		return nil, nil
	}
	b, err := bindingOf(m.content.index, m.desc.Digest)
	if err != nil {
		return nil, err
	}
	key := m.key
	if key == nil {
		key = encrypt.NewKey()
		defer key.Close()
	}
	return encrypt.NewProver(key, b.ArtifactID, b.Manifest)
}
