// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// Publish makes the files visible at the destination, all at once, and
// durable. Every file must be Done and no other call under way. Files have
// mode 0644 and directories 0755, less the umask that held when they were
// created.
//
// An empty directory at the destination is replaced. Where Publish fails the
// destination is absent or empty, with one exception: when the last sync fails
// the files are there and whole, but may not survive a loss of power. The
// error wraps ErrExists where somebody else made the destination meanwhile.
func (d *Dir) Publish() error {
	if err := d.publish(); err != nil {
		return fmt.Errorf("publish %s: %w", d.dest, err)
	}
	return d.Abort(false)
}

func (d *Dir) publish() error {
	if err := d.seal(); err != nil {
		return err
	}
	// The directory may have lost files to somebody who cleans up, or have
	// gained some.
	if _, err := d.inspect(true); err != nil {
		return err
	}
	for _, dir := range slices.Backward(append([]string{""}, d.dirs...)) {
		if err := d.syncDir(d.stage, path.Join(treeName, dir)); err != nil {
			return err
		}
	}
	if err := d.current(); err != nil {
		return err
	}
	if d.base == "" {
		return d.publishInside()
	}
	if err := d.clear(); err != nil {
		return err
	}
	switch err := d.sys.rename(d.home, path.Join(d.name, treeName), d.base); {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", ErrExists, err)
	case err != nil:
		return err
	}
	d.published = true
	return errors.Join(d.syncDir(d.stage, "."), d.syncDir(d.home, "."))
}

// seal stops all writing, and checks that all was written.
func (d *Dir) seal() error {
	d.mu.Lock()
	idle := d.open
	d.open = make(map[int]*handle)
	d.mu.Unlock()
	var errs []error
	for _, h := range idle {
		errs = append(errs, d.retire(h.f))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.published {
		return fs.ErrClosed
	}
	if d.final != nil {
		return d.final
	}
	if i := slices.Index(d.done, false); i >= 0 {
		return fmt.Errorf("file %q is not done", d.files[i].Path)
	}
	return errors.Join(errs...)
}

// current demands that the name in home still means the directory we filled.
func (d *Dir) current() error {
	named, err := d.sys.lstat(d.home, d.name)
	if err != nil {
		return err
	}
	held, err := d.lock.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(named, held) {
		return fmt.Errorf("%s: somebody replaced it", d.name)
	}
	return nil
}

// clear removes an empty directory at dest, onto which os.Root renames nothing.
// What another process puts there afterwards makes the rename fail.
func (d *Dir) clear() error {
	info, err := d.sys.lstat(d.home, d.base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: it is a %s", ErrExists, kind(info))
	}
	err = d.sys.remove(d.home, d.base)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// Abort ends the Dir. With keep it leaves what was written for a later Create
// of the same destination and id, else it removes it. Where a sync failed it
// removes it in any case: what reads back well then may not be on the disk. So
// it does with a directory of random name, which no later Create looks for.
func (d *Dir) Abort(keep bool) error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	open := d.open
	d.open = nil
	// Half of what is being moved is in the destination and half here.
	keep = (keep && !d.scratch || d.moving) && d.final == nil && !d.published
	d.mu.Unlock()
	for _, h := range open {
		h.f.Close()
	}
	if d.journal != nil {
		d.journal.Close()
	}
	var err error
	if d.stage != nil && !keep && d.current() == nil {
		if err = d.sys.removeAll(d.home, d.name); d.published {
			// What is left holds no data, and the destination is whole.
			err = nil
		}
	}
	d.leave()
	return errors.Join(err, d.home.Close())
}
