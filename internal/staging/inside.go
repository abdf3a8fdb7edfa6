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
	"strings"
)

// Names in a destination that is filled from inside. While entries are moved,
// the directory markMoving names the staging directory that they come from.
const (
	markMoving   = ".modelsec-moving"
	MarkComplete = ".modelsec-complete"
)

// placeInside takes a staging directory inside dest, after it has undone what
// a process had moved that did not live to complete it.
func (d *Dir) placeInside(dest fs.FileInfo) error {
	inside, err := d.sys.openRoot(d.home, d.base)
	if err != nil {
		return err
	}
	d.home.Close()
	d.home, d.base = inside, ""
	opened, err := d.sys.lstat(d.home, ".")
	if err != nil {
		return err
	}
	if !os.SameFile(dest, opened) {
		return fmt.Errorf("%w: it was replaced", ErrExists)
	}
	canonical := ".modelsec-" + d.id
	mover, err := d.mover()
	switch {
	case err != nil:
		return err
	case mover == "":
		if err := d.vacantInside(""); err != nil {
			return err
		}
		return d.take(canonical)
	case mover != canonical && !(strings.HasPrefix(mover, canonical+"-") && isHex(mover[len(canonical)+1:], 16)):
		return fmt.Errorf("%w: %s says that %q is being moved", ErrExists, markMoving, mover)
	}
	if err := d.claim(mover); err != nil {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	if !d.resumed {
		return fmt.Errorf("%w: %s says that %q is being moved, which is gone", ErrExists, markMoving, mover)
	}
	d.moving = true
	if err := d.moveBack(); err != nil {
		return err
	}
	return d.vacantInside("")
}

// mover is the staging directory whose entries are being moved, empty where
// none is.
func (d *Dir) mover() (string, error) {
	names, err := d.sys.list(d.home, markMoving)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && len(names) != 1 {
		err = fmt.Errorf("%w: %s is not ours", ErrExists, markMoving)
	}
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// vacantInside demands that dest holds nothing but staging directories, own,
// and what file systems put at their root.
func (d *Dir) vacantInside(own string) error {
	names, err := d.sys.list(d.home, ".")
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == MarkComplete || name == markMoving && name != own || !isReserved(name) && name != "lost+found" {
			return fmt.Errorf("%w: it holds %q", ErrExists, name)
		}
	}
	return nil
}

// publishInside moves the entries into dest. The mark goes there by a rename,
// which fails where another process was first: two never move at once, and
// what dest holds under the mark does not change.
func (d *Dir) publishInside() error {
	if err := d.setMark(); err != nil {
		return err
	}
	if err := d.vacantInside(markMoving); err != nil {
		if unmark := d.sys.removeAll(d.home, markMoving); unmark != nil {
			return errors.Join(err, unmark)
		}
		d.moving = false
		return err
	}
	err := d.syncDir(d.home, ".")
	if err == nil {
		err = d.moveAll()
	}
	if err == nil {
		err = d.complete()
	}
	if err != nil {
		// Where this fails too the mark stays, and a later Create does it.
		return errors.Join(err, d.moveBack())
	}
	d.published = true
	d.sys.removeAll(d.home, markMoving)
	return nil
}

func (d *Dir) setMark() error {
	if err := d.sys.removeAll(d.stage, movingName); err != nil {
		return err
	}
	if err := d.sys.mkdir(d.stage, movingName, 0o700); err != nil {
		return err
	}
	if err := d.sys.mkdir(d.stage, path.Join(movingName, d.name), 0o700); err != nil {
		return err
	}
	if err := d.syncDir(d.stage, movingName); err != nil {
		return err
	}
	switch err := d.sys.rename(d.home, path.Join(d.name, movingName), markMoving); {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%w: %w", ErrExists, err)
	case err != nil:
		return err
	}
	d.moving = true
	return nil
}

// entries are the names at the top of the tree.
func (d *Dir) entries() []string {
	var names []string
	for _, f := range d.files {
		top, _, _ := strings.Cut(f.Path, "/")
		names = append(names, top)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (d *Dir) moveAll() error {
	for _, name := range d.entries() {
		if err := d.sys.rename(d.home, path.Join(d.name, treeName, name), name); err != nil {
			return err
		}
	}
	return errors.Join(d.syncDir(d.stage, treeName), d.syncDir(d.home, "."))
}

// complete creates the mark that readers wait for.
func (d *Dir) complete() (err error) {
	f, err := d.sys.open(d.home, MarkComplete, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	err = d.retire(f)
	if err == nil {
		err = d.syncDir(d.home, ".")
	}
	if err != nil {
		return errors.Join(err, d.sys.remove(d.home, MarkComplete))
	}
	return nil
}

// moveBack undoes moveAll. An entry that is in both places is not ours.
func (d *Dir) moveBack() error {
	if _, err := d.sys.lstat(d.home, MarkComplete); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, ErrExists)
	}
	if err := d.sys.mkdir(d.stage, treeName, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	for _, name := range d.entries() {
		back := path.Join(d.name, treeName, name)
		_, moved := d.sys.lstat(d.home, name)
		_, kept := d.sys.lstat(d.home, back)
		if moved != nil || !errors.Is(kept, fs.ErrNotExist) {
			continue
		}
		if err := d.sys.rename(d.home, name, back); err != nil {
			return err
		}
	}
	if err := d.syncDir(d.home, "."); err != nil {
		return err
	}
	allocated, err := d.inspect(false)
	if err != nil {
		return err
	}
	d.allocated = allocated
	if err := d.sys.removeAll(d.home, markMoving); err != nil {
		return err
	}
	d.moving = false
	return nil
}

func isReserved(name string) bool { return strings.HasPrefix(name, ".modelsec-") }
