// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/internal/staging"
	"github.com/modelsec/modelsec-go/provenance"
)

// ExtractOptions choose files. Nil extracts all.
type ExtractOptions struct {
	// Include and Exclude are path.Match patterns, tried on the path, its last
	// element and the directories above. Without Include every file that
	// Exclude does not match is written.
	Include, Exclude []string

	// Files are the exact paths of the files that Pull opens, as by
	// [Client.OpenFiles]: a path that is not there is an error. Whoever has no
	// more than grants of some files needs it. Empty: all. Extract, whose model
	// is open, ignores it.
	Files []string
}

// Pull opens the artifact under the policy and extracts it: Open, Extract,
// Close. The report comes with a refusal too.
func (c *Client) Pull(ctx context.Context, ref, dir string, p provenance.Policy, o *ExtractOptions) (*provenance.Report, error) {
	c.init()
	op := c.begin("pull", ref)
	var names []string
	if o != nil {
		names = o.Files
	}
	m, err := c.open(ctx, op, p, names)
	if err != nil {
		var refused *provenance.PolicyError
		if errors.As(err, &refused) {
			return refused.Report, op.fail(err)
		}
		return nil, op.fail(err)
	}
	err = m.extract(ctx, op, dir, o)
	report := *m.report
	report.Notes = m.Notes()
	return &report, op.fail(join(err, m.Close()))
}

// Extract writes the files below dir, which must be absent or empty. Nothing
// is visible there before every byte of every file was verified: the files are
// staged in a private directory beside dir, or inside dir where that is a
// mount point, and renamed at the end; a file .modelsec-complete, written last,
// then marks the mount point. An interrupted Extract leaves the staging
// directory, and the next one for the same artifact and dir fetches only what
// is missing or does not prove itself.
func (m *Model) Extract(ctx context.Context, dir string, o *ExtractOptions) error {
	op := m.begin("extract")
	return op.fail(m.extract(ctx, op, dir, o))
}

func (m *Model) extract(ctx context.Context, op *operation, dir string, o *ExtractOptions) error {
	ctx, release, err := m.enter(ctx)
	if err != nil {
		return err
	}
	defer release()
	want, err := m.choose(o)
	if err != nil {
		return err
	}
	if err := m.wantsAll(want); err != nil {
		return err
	}
	// Opening may have counted what it read to compare it.
	op.done.Store(0)
	op.total = 0
	e := &extraction{Model: m, op: op, want: want}
	if err := e.stage(dir); err != nil {
		return err
	}
	reason := "write plaintext to " + dir
	if e.dir.MemoryBacked() {
		reason += ", which is in memory"
	}
	if err := op.audit(ctx, Event{Phase: phaseIntent, Allowed: true, Reason: reason}); err != nil {
		return join(err, e.dir.Abort(false))
	}
	err = e.run(ctx)
	// What is on the disk proves itself when it is taken up again; only where
	// nothing was written there is nothing to keep.
	keep := op.done.Load() > 0 && !errors.Is(err, staging.ErrExists)
	err = join(err, e.dir.Abort(keep))
	return op.outcome(ctx, Event{Bytes: op.done.Load(), Reason: reason}, err)
}

// choose selects the files to extract.
func (m *Model) choose(o *ExtractOptions) ([]bool, error) {
	if o == nil {
		o = &ExtractOptions{}
	}
	if err := join(checkPatterns(o.Include), checkPatterns(o.Exclude)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	want := make([]bool, len(m.content.files))
	for i, f := range m.content.files {
		want[i] = (len(o.Include) == 0 || matches(o.Include, f.Path)) && !matches(o.Exclude, f.Path)
	}
	if !slices.Contains(want, true) {
		return nil, fmt.Errorf("%w: no file of the model matches the patterns", ErrConfig)
	}
	return want, nil
}

// extraction is one Extract.
type extraction struct {
	*Model
	op     *operation
	dir    *staging.Dir
	want   []bool
	staged []int          // position in the staging directory of every file
	left   []atomic.Int64 // bytes that every file still lacks
}

// stage prepares the directory.
func (e *extraction) stage(dir string) error {
	var files []staging.File
	e.staged = make([]int, len(e.content.files))
	e.left = make([]atomic.Int64, len(e.content.files))
	for i, f := range e.content.files {
		if e.want[i] {
			e.staged[i] = len(files)
			e.left[i].Store(f.Size)
			e.op.total += f.Size
			files = append(files, staging.File{Path: f.Path, Size: f.Size})
		}
	}
	var err error
	e.dir, err = staging.Create(dir, e.stagingID(files), files)
	return err
}

// stagingID names what is staged, so that an interrupted Extract is taken up by
// one of the same artifact and the same files.
func (e *extraction) stagingID(files []staging.File) string {
	h := digest.New()
	io.WriteString(h, string(e.desc.Digest))
	for _, f := range files {
		fmt.Fprintf(h, "\x00%s", f.Path)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// run fills the directory and publishes it.
func (e *extraction) run(ctx context.Context) error {
	defer e.op.watch(e.op.total)()
	wanted := e.content.segmentsOf(func(file int) bool { return e.want[file] })
	if e.dir.Resumed() {
		var err error
		if wanted, err = e.missing(ctx, wanted); err != nil {
			return err
		}
	}
	for i, f := range e.content.files {
		if e.want[i] && f.Size == 0 {
			if err := e.dir.Done(e.staged[i]); err != nil {
				return err
			}
		}
	}
	var note sink
	if e.content.openers != nil {
		note = e.note
	}
	if err := e.content.fetchNoting(ctx, wanted, note, e.write); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := e.comparePlaintext(ctx); err != nil {
		return err
	}
	return e.dir.Publish()
}

// write is the sink: it puts what a segment has of the wanted files in place.
func (e *extraction) write(layer int, k int64, content []byte) error {
	start, length := e.content.index.Geometry(layer).Range(k)
	pieces := e.content.overlap(layer, start, length)
	for _, p := range pieces {
		if !e.want[p.File] {
			continue
		}
		name := e.content.files[p.File].Path
		e.op.file.Store(&name)
		at := p.LayerOffset - start
		if err := e.dir.WriteAt(e.staged[p.File], content[at:at+p.Length], p.FileOffset); err != nil {
			return &Error{File: name, Segment: -1, Err: err}
		}
	}
	return e.complete(pieces)
}

// complete counts pieces that are in place and makes whole files durable.
func (e *extraction) complete(pieces []index.Piece) error {
	for _, p := range pieces {
		if !e.want[p.File] {
			continue
		}
		e.op.done.Add(p.Length)
		if e.left[p.File].Add(-p.Length) > 0 {
			continue
		}
		if err := e.dir.Done(e.staged[p.File]); err != nil {
			return &Error{File: e.content.files[p.File].Path, Segment: -1, Err: err}
		}
	}
	return nil
}
