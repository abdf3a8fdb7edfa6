// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/internal/gguf"
	"github.com/modelsec/modelsec-go/internal/safetensors"
	"github.com/modelsec/modelsec-go/internal/tensor"
)

const (
	safetensorsSuffix = ".safetensors"
	ggufSuffix        = ".gguf"
	shardIndexSuffix  = ".safetensors.index.json"

	headerReaders = 8         // files whose headers are read at a time
	maxShardIndex = 256 << 20 // bytes; that of a model with a trillion parameters has 60 MB
)

// tensorList is what the headers of a model's files say. It is read once.
type tensorList struct {
	mu   sync.Mutex // held while reading
	read bool
	list []Tensor
	held atomic.Int64 // bytes of the client's budget
}

// Tensors lists the tensors of all .safetensors and .gguf files, in the order
// of the files and then of their offsets. Only the headers are fetched, and
// only verified bytes are looked at. Where there is a *.safetensors.index.json
// it must say the same as the headers; shards that [Client.OpenFiles] did not
// open are left out of that.
//
// The list is read once and kept, some 400 bytes a tensor of the client's
// MemoryLimit; the caller may change the copy that it gets. A model without
// such files has no tensors.
//
// Errors: ErrFormat where a file breaks a rule of its format or an index
// disagrees with the headers, ErrLimit where the list needs more memory than
// MemoryLimit leaves.
func (m *Model) Tensors(ctx context.Context) ([]Tensor, error) {
	list, err := m.tensors(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.Clone(list)
	for i := range list {
		list[i].Shape = slices.Clone(list[i].Shape)
	}
	return list, nil
}

// tensors returns the list, which the caller must not change.
func (m *Model) tensors(ctx context.Context) ([]Tensor, error) {
	op := m.begin("tensors")
	ctx, release, err := m.use(ctx)
	if err != nil {
		return nil, op.fail(err)
	}
	defer release()
	t := &m.tensorList
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.read {
		return t.list, nil
	}
	const reason = "read the headers of tensor files"
	if err := op.audit(ctx, Event{Phase: phaseIntent, Allowed: true, Reason: reason}); err != nil {
		return nil, op.fail(err)
	}
	list, err := m.readTensors(ctx, op)
	if err == nil {
		err = m.checkShards(ctx, op, list)
	}
	if err = op.outcome(ctx, Event{Bytes: op.done.Load(), Reason: reason}, err); err != nil {
		t.drop(m.c.budget)
		return nil, op.fail(err)
	}
	t.list, t.read = list, true
	return list, nil
}

// reserve takes memory for the list.
func (m *Model) reserve(n int64) error {
	if err := m.c.budget.hold(n, "the list of tensors"); err != nil {
		return err
	}
	m.tensorList.held.Add(n)
	return nil
}

// drop forgets the list and gives its memory back.
func (t *tensorList) drop(b *budget) {
	b.release(t.held.Swap(0))
	t.list, t.read = nil, false
}

// readTensors reads the headers of all files, some at a time.
func (m *Model) readTensors(ctx context.Context, op *operation) (list []Tensor, err error) {
	var files []int
	for i, f := range m.content.files {
		if headerReader(f.Path) != nil {
			files = append(files, i)
		}
	}
	headers := make([][]tensor.Info, len(files))
	err = parallel(ctx, len(files), headerReaders, func(ctx context.Context, i int) (err error) {
		f := m.content.files[files[i]]
		r := newFileReader(m, ctx, op, files[i])
		headers[i], err = headerReader(f.Path)(r, f.Size, m.reserve)
		return formatError(f.Path, err)
	})
	if err != nil {
		return nil, err
	}
	for i, infos := range headers {
		for _, t := range infos {
			list = append(list, Tensor{Name: t.Name, DType: t.DType, File: m.content.files[files[i]].Path,
				Shape: t.Shape, Offset: t.Offset, Size: t.Size, block: t.Block})
		}
	}
	return list, nil
}

// headerReader is the reader of a file by its name, or nil.
func headerReader(name string) func(io.ReaderAt, int64, tensor.Reserve) ([]tensor.Info, error) {
	switch {
	case strings.HasSuffix(name, safetensorsSuffix):
		return safetensors.Read
	case strings.HasSuffix(name, ggufSuffix):
		return gguf.Read
	}
	return nil
}

// formatError names the file in an error about it.
func formatError(file string, err error) error {
	if errors.Is(err, tensor.ErrFormat) {
		return &Error{File: file, Segment: -1, Err: fmt.Errorf("%w: %w", ErrFormat, err)}
	}
	return err
}

// checkShards compares every index of shards with the headers. The index is
// the word of whoever wrote it: the headers say what is where.
func (m *Model) checkShards(ctx context.Context, op *operation, list []Tensor) error {
	byFile := make(map[string][]Tensor)
	for from := 0; from < len(list); {
		to := from
		for to < len(list) && list[to].File == list[from].File {
			to++
		}
		byFile[list[from].File] = list[from:to]
		from = to
	}
	for i, f := range m.content.files {
		if !strings.HasSuffix(f.Path, shardIndexSuffix) {
			continue
		}
		if err := m.checkShardIndex(ctx, op, i, byFile); err != nil {
			return formatError(f.Path, err)
		}
	}
	return nil
}

func (m *Model) checkShardIndex(ctx context.Context, op *operation, file int, byFile map[string][]Tensor) error {
	f := m.content.files[file]
	if f.Size > maxShardIndex {
		return fmt.Errorf("%w: an index of %d bytes, limit %d", tensor.ErrFormat, f.Size, maxShardIndex)
	}
	var reserved int64
	defer func() { m.c.budget.release(reserved) }()
	dir := path.Dir(f.Path)
	shards := make(map[string]map[string]bool) // what the index has not named yet of every shard
	r := io.NewSectionReader(newFileReader(m, ctx, op, file), 0, f.Size)
	err := safetensors.ReadIndex(r, func(name, shard string) error {
		at := path.Join(dir, shard)
		left, ok := shards[at]
		if !ok {
			if !fs.ValidPath(shard) || !strings.HasSuffix(at, safetensorsSuffix) {
				return fmt.Errorf("%w: tensor %q is said to be in %q, which is no safetensors file", tensor.ErrFormat, tensor.Clip(name), tensor.Clip(shard))
			}
			if _, err := m.file(at); err != nil && m.content.partial {
				return nil // the caller did not open that shard
			} else if err != nil {
				return fmt.Errorf("%w: tensor %q is said to be in %q, which the model does not have", tensor.ErrFormat, tensor.Clip(name), tensor.Clip(shard))
			}
			left = make(map[string]bool)
			for _, t := range byFile[at] {
				cost := tensor.Cost("", 0)
				if err := m.c.budget.hold(cost, "comparing an index of shards"); err != nil {
					return err
				}
				reserved += cost
				left[t.Name] = true
			}
			shards[at] = left
		}
		if !left[name] {
			return fmt.Errorf("%w: tensor %q is said to be in %q, whose header does not list it, or twice", tensor.ErrFormat, tensor.Clip(name), tensor.Clip(shard))
		}
		delete(left, name)
		return nil
	})
	if err != nil {
		return err
	}
	for at, left := range shards {
		for name := range left {
			return fmt.Errorf("%w: tensor %q of %q is not in the index", tensor.ErrFormat, tensor.Clip(name), at)
		}
	}
	base := path.Base(strings.TrimSuffix(f.Path, shardIndexSuffix))
	for _, other := range m.content.files {
		rest, ok := strings.CutPrefix(path.Base(other.Path), base)
		if ok && path.Dir(other.Path) == dir && shardName.MatchString(rest) && shards[other.Path] == nil {
			return fmt.Errorf("%w: shard %q is not in the index", tensor.ErrFormat, other.Path)
		}
	}
	return nil
}

// shardName is what follows the common part of the names of shards.
var shardName = regexp.MustCompile(`^-[0-9]{5,6}-of-[0-9]{5,6}\.safetensors$`)
