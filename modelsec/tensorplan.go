// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math/bits"
	"slices"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// tensorPlan says what of a model a set of tensors needs.
type tensorPlan struct {
	tensors []*plannedTensor   // in the order asked for
	byFile  [][]*plannedTensor // of every file, by offset
	wanted  [][]int64          // segments of every layer
	size    int64              // bytes of all tensors
}

// plannedTensor is one tensor to load.
type plannedTensor struct {
	Tensor
	whole *tensor.Region // nil: Size bytes at Offset
	end   int64          // of the bytes in the file of this tensor and of all before it in byFile
	buf   []byte
	left  atomic.Int64 // bytes that buf lacks
	given atomic.Bool  // buf went to Done
}

// runs yields what the tensor has of the bytes low to high of its file.
func (t *plannedTensor) runs(low, high int64) iter.Seq[tensor.Run] {
	if t.whole != nil {
		return t.whole.Runs(low, high)
	}
	return func(yield func(tensor.Run) bool) {
		if from, to := max(t.Offset, low), min(t.Offset+t.Size, high); from < to {
			yield(tensor.Run{Offset: from, At: from - t.Offset, Length: to - from})
		}
	}
}

// planTensors finds the segments of tensors. Nil wants all.
func (m *Model) planTensors(ctx context.Context, want []Tensor) (*tensorPlan, error) {
	if want == nil {
		var err error
		if want, err = m.tensors(ctx); err != nil {
			return nil, err
		}
		if len(want) == 0 {
			return nil, fmt.Errorf("%w: the model has no .safetensors and no .gguf files", ErrConfig)
		}
	}
	p := &tensorPlan{byFile: make([][]*plannedTensor, len(m.content.files))}
	for _, t := range want {
		if err := p.add(m, t); err != nil {
			return nil, &Error{File: t.File, Segment: -1, Err: fmt.Errorf("%w: tensor %q: %w", ErrConfig, tensor.Clip(t.Name), err)}
		}
	}
	touched := newSegmentSet(m.content)
	for file, list := range p.byFile {
		slices.SortStableFunc(list, func(a, b *plannedTensor) int { return cmp.Compare(a.Offset, b.Offset) })
		var end int64
		for _, t := range list {
			touched.add(m.content, file, t)
			end = max(end, t.end)
			t.end = end
		}
	}
	p.wanted = touched.list()
	return p, nil
}

// add checks that a tensor lies in its file. The fields of Tensor are the
// caller's to change.
func (p *tensorPlan) add(m *Model, want Tensor) error {
	file, err := m.file(want.File)
	if err != nil {
		return err
	}
	t := &plannedTensor{Tensor: want, whole: want.region, end: want.Offset}
	if r := want.region; r != nil {
		if want.Size != r.Size() || want.Offset != r.Offset() {
			return fmt.Errorf("its Offset or Size is not that of the slice")
		}
		t.end = r.End()
	} else if want.Size > 0 {
		t.end += want.Size
	}
	if size := m.content.files[file].Size; want.Offset < 0 || want.Size < 0 || t.end < want.Offset || t.end > size {
		return fmt.Errorf("%d bytes at %d of a file of %d", want.Size, want.Offset, size)
	}
	t.left.Store(want.Size)
	p.tensors = append(p.tensors, t)
	p.byFile[file] = append(p.byFile[file], t)
	p.size += want.Size
	return nil
}

// overlapping yields the tensors of a file that may have bytes in a stretch.
func (p *tensorPlan) overlapping(file int, low, high int64) iter.Seq[*plannedTensor] {
	return func(yield func(*plannedTensor) bool) {
		list := p.byFile[file]
		first, _ := slices.BinarySearchFunc(list, low, func(t *plannedTensor, at int64) int {
			if t.end <= at {
				return -1
			}
			return 1
		})
		for _, t := range list[first:] {
			if t.Offset >= high || !yield(t) {
				return
			}
		}
	}
}

// Cost says what LoadTensors would ask the registry for: how many requests for
// how many bytes of layers. It is exact where no range fails or is ignored and
// no CacheDir has segments; LoadTensors does not use what random access keeps.
// Nil wants all tensors. Only headers that were not read yet are fetched.
func (m *Model) Cost(ctx context.Context, want []Tensor) (requests int, bytes int64, err error) {
	op := m.begin("cost")
	ctx, release, err := m.use(ctx)
	if err != nil {
		return 0, 0, op.fail(err)
	}
	defer release()
	p, err := m.planTensors(ctx, want)
	if err != nil {
		return 0, 0, op.fail(err)
	}
	requests, bytes = m.content.cost(p.wanted)
	return requests, bytes, nil
}

// cost is what a fetch of segments asks for.
func (t *content) cost(wanted [][]int64) (requests int, bytes int64) {
	for _, j := range t.jobs(wanted) {
		requests++
		if !t.ranged(j) {
			bytes += t.layers[j.layer].Size
			continue
		}
		for _, k := range j.wanted {
			_, n := t.index.Geometry(j.layer).Stored(k)
			bytes += n
		}
	}
	return requests, bytes
}

// segmentSet is a set of segments: one bit for each, by layer.
type segmentSet [][]uint64

func newSegmentSet(t *content) segmentSet {
	s := make(segmentSet, len(t.layers))
	for layer := range s {
		s[layer] = make([]uint64, (t.index.Geometry(layer).Count()+63)/64)
	}
	return s
}

// add adds the segments that hold bytes of a tensor.
func (s segmentSet) add(t *content, file int, want *plannedTensor) {
	if want.Size == 0 {
		return
	}
	end := want.Offset + want.Size
	if want.whole != nil {
		end = want.whole.End()
	}
	for _, run := range runsIn(t.files[file].Runs, want.Offset, end-want.Offset) {
		g := t.index.Geometry(run.Layer)
		for k := g.At(run.LayerOffset); k <= g.At(run.LayerOffset+run.Length-1); k++ {
			// The segment in terms of the file.
			start, length := g.Range(k)
			low := run.FileOffset + max(start, run.LayerOffset) - run.LayerOffset
			high := run.FileOffset + min(start+length, run.LayerOffset+run.Length) - run.LayerOffset
			for range want.runs(low, high) {
				s[run.Layer][k/64] |= 1 << (k % 64)
				break
			}
		}
	}
}

// list returns the segments of every layer in order.
func (s segmentSet) list() [][]int64 {
	out := make([][]int64, len(s))
	for layer, words := range s {
		for i, w := range words {
			for ; w != 0; w &= w - 1 {
				out[layer] = append(out[layer], int64(i)*64+int64(bits.TrailingZeros64(w)))
			}
		}
	}
	return out
}
