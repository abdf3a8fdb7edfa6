// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/internal/index"
)

// maxAhead is how many bytes a reader fetches before they are asked for: enough
// that a reader of small pieces is not held up by the way to the registry.
const maxAhead = 8 << 20

// ReaderAt opens one file for random access. Reads fetch, verify and decrypt
// the segments that they touch; the segments at both ends of a read are kept
// for the next, 16 at most and within the client's MemoryLimit. A reader whose
// reads follow one another fetches ahead, twice as much each time up to 8 MiB.
// ctx governs every read.
//
// The reader is safe for concurrent use and has Size and Seek, so that
// http.ServeContent and safetensors readers take it. It ends with the model.
// The audit record has one intent for each file, when it is first opened, and
// one outcome, with all bytes read of it, when the model is closed.
func (m *Model) ReaderAt(ctx context.Context, name string) (*io.SectionReader, error) {
	f, err := m.file(name)
	if err != nil {
		return nil, m.begin("read").fail(&fs.PathError{Op: "open", Path: name, Err: err})
	}
	op, err := m.handle(ctx, f)
	if err != nil {
		return nil, m.begin("read").fail(err)
	}
	return io.NewSectionReader(newFileReader(m, ctx, op, f), 0, m.content.files[f].Size), nil
}

// begin starts an operation on the model.
func (m *Model) begin(name string) *operation {
	op := m.c.begin(name, m.ref.String())
	op.digest, op.host = m.desc.Digest, m.host
	return op
}

// handle returns the operation that all random access to a file belongs to.
// The first to ask records the intent. K44.
func (m *Model) handle(ctx context.Context, file int) (*operation, error) {
	_, release, err := m.use(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	m.opening.Lock()
	defer m.opening.Unlock()
	if op := m.handles[file]; op != nil {
		return op, nil
	}
	op := m.begin("read")
	if err := op.audit(ctx, Event{Phase: phaseIntent, Allowed: true, File: m.content.files[file].Path, Reason: "random access"}); err != nil {
		return nil, err
	}
	if m.handles == nil {
		m.handles = make(map[int]*operation)
	}
	m.handles[file] = op
	return op, nil
}

// endHandles records what was read.
func (m *Model) endHandles() (err error) {
	for _, file := range slices.Sorted(maps.Keys(m.handles)) {
		op := m.handles[file]
		err = join(err, op.outcome(context.Background(), Event{File: m.content.files[file].Path, Bytes: op.done.Load(), Reason: "random access"}, nil))
	}
	return err
}

// fileReader is the io.ReaderAt of one file. It holds the context that it was
// made for, as io.ReaderAt leaves no other way.
type fileReader struct {
	m    *Model
	ctx  context.Context
	op   *operation
	file int

	last  atomic.Int64 // where the last read ended
	ahead atomic.Int64 // segments that were fetched ahead the last time
}

func newFileReader(m *Model, ctx context.Context, op *operation, file int) *fileReader {
	r := &fileReader{m: m, ctx: ctx, op: op, file: file}
	r.last.Store(-1) // the first read follows none
	return r
}

// ReadAt implements io.ReaderAt.
func (r *fileReader) ReadAt(p []byte, offset int64) (int, error) {
	size := r.m.content.files[r.file].Size
	if offset < 0 {
		return 0, r.op.fail(&fs.PathError{Op: "read", Path: r.m.content.files[r.file].Path, Err: fs.ErrInvalid})
	}
	if offset >= size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), size-offset))
	if err := r.read(p[:n], offset); err != nil {
		clear(p[:n]) // K45: nothing unverified, and nothing half, is left
		return 0, r.op.fail(err)
	}
	r.op.done.Add(int64(n))
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (r *fileReader) read(p []byte, offset int64) error {
	ctx, release, err := r.m.use(r.ctx)
	if err != nil {
		return err
	}
	defer release()
	t := r.m.content
	end := offset + int64(len(p))
	follows := r.last.Swap(end) == offset
	wanted := make([][]int64, len(t.layers))
	missing := false
	for layer, k := range t.segmentsIn(r.file, offset, end) {
		if !r.m.cache.view(layer, k, func(content []byte) { r.copy(p, offset, layer, k, content) }) {
			wanted[layer] = append(wanted[layer], k)
			missing = true
		}
	}
	if !missing {
		return nil
	}
	keep := func(layer int, k int64, content []byte) error {
		if whole := r.copy(p, offset, layer, k, content); !whole {
			r.m.cache.put(layer, k, content)
		}
		return nil
	}
	more := r.readAhead(wanted, end, follows)
	if more == nil {
		return t.fetch(ctx, wanted, keep)
	}
	if err = t.fetch(ctx, more, keep); err != nil && ctx.Err() == nil {
		// What was not asked for must not fail what was.
		r.ahead.Store(0)
		err = t.fetch(ctx, wanted, keep)
	}
	return err
}

// readAhead returns wanted and the segments after end that a reader who goes
// on will want next, or nil where there are none.
func (r *fileReader) readAhead(wanted [][]int64, end int64, follows bool) [][]int64 {
	if !follows {
		r.ahead.Store(0)
		return nil
	}
	t := r.m.content
	// Half of the cache at most, so that nothing is dropped before it is read.
	n := min(max(1, 2*r.ahead.Load()), maxAhead/t.index.SegmentSize, r.m.cache.room()/2)
	r.ahead.Store(n)
	var more [][]int64
	for layer, k := range t.segmentsIn(r.file, end, t.files[r.file].Size) {
		if slices.Contains(wanted[layer], k) {
			continue // the read ends within it
		}
		if n--; n < 0 {
			break
		}
		if r.m.cache.view(layer, k, func([]byte) {}) {
			continue
		}
		if more == nil {
			more = slices.Clone(wanted)
		}
		more[layer] = append(slices.Clip(more[layer]), k)
	}
	return more
}

// segmentsIn yields the segments that hold the bytes from offset to end of a
// file, in order.
func (t *content) segmentsIn(file int, offset, end int64) iter.Seq2[int, int64] {
	return func(yield func(int, int64) bool) {
		if offset >= end {
			return
		}
		for _, run := range runsIn(t.files[file].Runs, offset, end-offset) {
			g := t.index.Geometry(run.Layer)
			for k := g.At(run.LayerOffset); k <= g.At(run.LayerOffset+run.Length-1); k++ {
				if !yield(run.Layer, k) {
					return
				}
			}
		}
	}
}

// copy copies what a segment has of the file at offset into p, and reports
// whether p took all of it.
func (r *fileReader) copy(p []byte, offset int64, layer int, k int64, content []byte) (whole bool) {
	start, length := r.m.content.index.Geometry(layer).Range(k)
	copied := 0
	for _, piece := range r.m.content.overlap(layer, start, length) {
		if piece.File != r.file {
			continue
		}
		from, to := piece.FileOffset, piece.FileOffset+piece.Length
		low, high := max(from, offset), min(to, offset+int64(len(p)))
		if low < high {
			at := piece.LayerOffset - start + low - from
			copied += copy(p[low-offset:high-offset], content[at:])
		}
	}
	return copied == len(content)
}

// runsIn cuts the runs of a file to a stretch of it.
func runsIn(runs []index.Run, offset, length int64) []index.Run {
	var out []index.Run
	first, _ := slices.BinarySearchFunc(runs, offset, func(r index.Run, at int64) int {
		if r.FileOffset+r.Length <= at {
			return -1
		}
		return 1
	})
	for _, r := range runs[first:] {
		if r.FileOffset >= offset+length {
			break
		}
		if skip := offset - r.FileOffset; skip > 0 {
			r.FileOffset, r.LayerOffset, r.Length = offset, r.LayerOffset+skip, r.Length-skip
		}
		r.Length = min(r.Length, offset+length-r.FileOffset)
		out = append(out, r)
	}
	return out
}
