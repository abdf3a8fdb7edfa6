// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"sync"
)

// maxOpen bounds the files that stay open between calls. More are open only
// while more calls are under way.
const maxOpen = 64

// handle is an open file. While refs is above 0 a call uses it.
type handle struct {
	f    *os.File
	refs int

	// The kernel takes the writes to one file one after the other, and what
	// waits for it there keeps a processor. Here it does not.
	writing sync.Mutex
}

// WriteAt writes p at off of file number file, all of it or an error. It never
// writes beyond the size of the file.
func (d *Dir) WriteAt(file int, p []byte, off int64) error {
	if err := d.checkRange(file, len(p), off); err != nil {
		return err
	}
	h, err := d.acquire(file, true)
	if err != nil {
		return err
	}
	defer d.release(h)
	h.writing.Lock()
	err = d.sys.write(h.f, p, off)
	h.writing.Unlock()
	if err != nil {
		return d.space(err, d.files[file].Path, int64(len(p)))
	}
	return nil
}

// ReadAt fills p from off. It is there to prove what an earlier process left;
// where that process had not come to the file yet, the error is
// fs.ErrNotExist. Bytes that nobody wrote read as zeros.
func (d *Dir) ReadAt(file int, p []byte, off int64) error {
	if err := d.checkRange(file, len(p), off); err != nil {
		return err
	}
	h, err := d.acquire(file, false)
	if err != nil {
		return err
	}
	defer d.release(h)
	return d.sys.read(h.f, p, off)
}

// Done makes a file durable once its last byte was written or proved, and
// closes it. Empty files need it too. A later WriteAt opens the file again and
// calls for another Done. Where Done fails the Dir cannot be published any
// more: a second fsync would report success for bytes that were lost.
func (d *Dir) Done(file int) error {
	if err := d.checkRange(file, 0, 0); err != nil {
		return err
	}
	h, err := d.acquire(file, true)
	if err != nil {
		return err
	}
	err = d.sync(h.f)
	d.mu.Lock()
	h.refs--
	last := h.refs == 0 && d.open[file] == h
	if last {
		delete(d.open, file)
	}
	d.done[file] = err == nil
	d.mu.Unlock()
	if last {
		err = errors.Join(err, h.f.Close())
	}
	return err
}

func (d *Dir) checkRange(file, n int, off int64) error {
	if file < 0 || file >= len(d.files) {
		return fmt.Errorf("file %d of %d", file, len(d.files))
	}
	if f := d.files[file]; off < 0 || off > f.Size || int64(n) > f.Size-off {
		return fmt.Errorf("file %q: %d bytes at %d of %d", f.Path, n, off, f.Size)
	}
	return nil
}

// acquire lends the open file. Opening is done under the lock: it happens
// about once for each file, and touches no data.
func (d *Dir) acquire(file int, create bool) (*handle, error) {
	d.mu.Lock()
	if d.closed || d.published {
		d.mu.Unlock()
		return nil, fs.ErrClosed
	}
	if create {
		d.done[file] = false
	}
	h, idle := d.open[file], (*handle)(nil)
	if h == nil {
		f, err := d.openFile(file, create)
		if err != nil {
			d.mu.Unlock()
			return nil, err
		}
		if len(d.open) >= maxOpen {
			idle = d.takeIdle()
		}
		h = &handle{f: f}
		d.open[file] = h
	}
	h.refs++
	d.mu.Unlock()
	if idle != nil {
		if err := d.retire(idle.f); err != nil {
			d.release(h)
			return nil, err
		}
	}
	return h, nil
}

func (d *Dir) release(h *handle) {
	d.mu.Lock()
	h.refs--
	d.mu.Unlock()
}

// takeIdle removes some file that no call uses from the open ones.
func (d *Dir) takeIdle() *handle {
	for file, h := range d.open {
		if h.refs == 0 {
			delete(d.open, file)
			return h
		}
	}
	return nil
}

// retire syncs and closes. A file is never closed without the sync: an error
// of writing it back would find nobody to tell.
func (d *Dir) retire(f *os.File) error { return errors.Join(d.sync(f), f.Close()) }

func (d *Dir) sync(f *os.File) error { return d.finish(d.sys.sync(f)) }

func (d *Dir) syncDir(dir *os.Root, name string) error { return d.finish(d.sys.syncDir(dir, name)) }

// finish keeps the first failed sync. The pages that were lost count as clean
// from then on, so neither a second sync nor reading them back says anything.
func (d *Dir) finish(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.final == nil {
		d.final = err
	}
	return err
}

// openFile opens a file, and creates it where asked. What is there already was
// inspected by Create; lstat and the comparison keep links out all the same.
func (d *Dir) openFile(file int, create bool) (_ *os.File, err error) {
	want := d.files[file]
	name := path.Join(treeName, want.Path)
	before, err := d.sys.lstat(d.stage, name)
	flag := os.O_RDWR
	switch {
	case create && errors.Is(err, fs.ErrNotExist):
		flag |= os.O_CREATE | os.O_EXCL
	case err != nil:
		return nil, err
	case !before.Mode().IsRegular() || !sameOwner(before, d.owner) || !oneLink(before):
		return nil, fmt.Errorf("file %q: %w: a %s", want.Path, errUntrusted, kind(before))
	}
	f, err := d.sys.open(d.stage, name, flag)
	if before == nil && errors.Is(err, fs.ErrExist) {
		// Another process fills the same directory, where locks do not work.
		return d.openFile(file, create)
	}
	if err != nil {
		return nil, d.space(err, want.Path, want.Size)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	after, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if before != nil && !os.SameFile(before, after) {
		return nil, fmt.Errorf("file %q: %w: it was replaced", want.Path, errUntrusted)
	}
	if after.Size() != want.Size {
		if err := d.sys.reserve(f, want.Size); err != nil {
			return nil, d.space(err, want.Path, want.Size)
		}
	}
	return f, nil
}

// PutRecord keeps rec as record n of the journal. All records of a Dir have
// the same length. The journal is a note for a later process about where to
// look first: it is not synced, may be torn, lost or written by somebody else,
// and says nothing about the bytes.
func (d *Dir) PutRecord(n int64, rec []byte) error {
	f, off, err := d.record(n, len(rec))
	if err != nil {
		return err
	}
	return d.space(d.sys.write(f, rec, off), journalName, int64(len(rec)))
}

// Record reads record n of the journal. A record that was never written is
// zeros, or an error where it lies beyond the end.
func (d *Dir) Record(n int64, rec []byte) error {
	f, off, err := d.record(n, len(rec))
	if err != nil {
		return err
	}
	return d.sys.read(f, rec, off)
}

func (d *Dir) record(n int64, size int) (f *os.File, off int64, err error) {
	if n < 0 || size <= 0 || n > math.MaxInt64/int64(size)-1 {
		return nil, 0, fmt.Errorf("journal record %d of %d bytes", n, size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.published {
		return nil, 0, fs.ErrClosed
	}
	return d.journal, n * int64(size), nil
}
