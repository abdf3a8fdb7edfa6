// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
)

// errUntrusted says why a directory that was found is not taken up again.
var errUntrusted = errors.New("not ours alone")

// place decides where the staging directory lies, and takes it.
func (d *Dir) place() error {
	info, err := d.sys.lstat(d.home, d.base)
	if errors.Is(err, fs.ErrNotExist) {
		return d.take("." + d.base + ".modelsec-" + d.id)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%w: it is a %s", ErrExists, kind(info))
	}
	inside, err := d.sys.mounted(d.home, d.base)
	if err != nil {
		return err
	}
	names, err := d.sys.list(d.home, d.base)
	if err != nil {
		return err
	}
	if !inside && !slices.ContainsFunc(names, isReserved) {
		if len(names) > 0 {
			return fmt.Errorf("%w: it holds %q", ErrExists, names[0])
		}
		err := d.take("." + d.base + ".modelsec-" + d.id)
		if !errors.Is(err, fs.ErrPermission) {
			return err
		}
	}
	return d.placeInside(info)
}

// take opens the staging directory of the given name, new or left by an
// earlier process; where that one is in use or not to be trusted, a new one
// with a random suffix.
func (d *Dir) take(name string) error {
	err := d.claim(name)
	if errors.Is(err, errLocked) || errors.Is(err, errUntrusted) {
		var suffix [8]byte
		rand.Read(suffix[:])
		d.scratch = true
		err = d.claim(name + "-" + hex.EncodeToString(suffix[:]))
	}
	return err
}

// claim makes or takes up the one staging directory of that name.
func (d *Dir) claim(name string) error {
	err := d.sys.mkdir(d.home, name, 0o700)
	resumed := errors.Is(err, fs.ErrExist)
	if err != nil && !resumed {
		return err
	}
	if resumed {
		if err := d.trustHome(); err != nil {
			return err
		}
	}
	if err = d.openStage(name, resumed); err == nil {
		d.name, d.resumed = name, resumed
		if d.allocated, err = d.inspect(false); err != nil {
			d.leave()
		}
	}
	if err != nil && !resumed && !errors.Is(err, errLocked) {
		// It is empty; where even this fails, that is all that is left.
		d.sys.remove(d.home, name)
	}
	return err
}

// openStage opens and locks the directory. It follows no link: what was opened
// must be what lstat saw, and must still have the name once the lock is held,
// as a process that ends removes its directory under the lock.
//
// A new directory may belong to somebody else, as file servers map users.
func (d *Dir) openStage(name string, resumed bool) (err error) {
	defer func() {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w: %w", name, errUntrusted, err)
		}
		if err != nil {
			d.leave()
		}
	}()
	before, err := d.sys.lstat(d.home, name)
	if err != nil {
		return err
	}
	if !before.IsDir() || resumed && (before.Mode().Perm() != 0o700 || !ours(before)) {
		return fmt.Errorf("%s: %w: a %s of mode %v", name, errUntrusted, kind(before), before.Mode())
	}
	if d.stage, err = d.sys.openRoot(d.home, name); err != nil {
		return err
	}
	if d.lock, err = d.sys.open(d.stage, ".", os.O_RDONLY); err != nil {
		return err
	}
	if err := d.sys.lock(d.lock); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if d.owner, err = d.lock.Stat(); err != nil {
		return err
	}
	after, err := d.sys.lstat(d.home, name)
	if err != nil {
		return err
	}
	if !os.SameFile(before, d.owner) || !os.SameFile(after, d.owner) {
		return fmt.Errorf("%s: %w: it was replaced", name, errUntrusted)
	}
	return nil
}

// leave closes the staging directory without a change to it.
func (d *Dir) leave() {
	if d.lock != nil {
		d.lock.Close()
	}
	if d.stage != nil {
		d.stage.Close()
	}
	d.lock, d.stage, d.name, d.resumed = nil, nil, "", false
}

// trustHome demands that nobody else can put directories of ours where we look
// for them: the directory that holds ours belongs to us or the superuser, and
// others cannot write it or, as in /tmp, cannot rename what is not theirs.
func (d *Dir) trustHome() error {
	info, err := d.sys.lstat(d.home, ".")
	if err != nil {
		return err
	}
	mode := info.Mode()
	if !canTrust || !oursOrRoot(info) || mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0 {
		return fmt.Errorf("%s: %w: others can write it", d.home.Name(), errUntrusted)
	}
	return nil
}

// inspect walks the staging directory. It demands that the tree holds files of
// the list and their directories and nothing else, each ours and with one
// link, and with complete that all are there in full size. It returns how much
// space the files have.
func (d *Dir) inspect(complete bool) (allocated int64, err error) {
	top, err := d.sys.list(d.stage, ".")
	if err != nil {
		return 0, err
	}
	seen := 0
	for _, name := range top {
		switch info, err := d.sys.lstat(d.stage, name); {
		case err != nil:
			return 0, err
		case !sameOwner(info, d.owner):
			return 0, fmt.Errorf("%s/%s: %w: it has another owner", d.name, name, errUntrusted)
		case name == treeName && info.IsDir():
			if allocated, err = d.inspectTree("", complete, &seen); err != nil {
				return 0, err
			}
		case name == journalName && info.Mode().IsRegular() && oneLink(info):
		case name == movingName && info.IsDir():
		default:
			return 0, fmt.Errorf("%s/%s: %w: a %s", d.name, name, errUntrusted, kind(info))
		}
	}
	if complete && seen != len(d.files) {
		return 0, fmt.Errorf("%s: %d of %d files are there: somebody removed the others", d.name, seen, len(d.files))
	}
	return allocated, nil
}

func (d *Dir) inspectTree(dir string, complete bool, seen *int) (allocated int64, err error) {
	names, err := d.sys.list(d.stage, path.Join(treeName, dir))
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		p := path.Join(dir, name)
		info, err := d.sys.lstat(d.stage, path.Join(treeName, p))
		if err != nil {
			return 0, err
		}
		i, listed := d.byPath[p]
		switch {
		case !sameOwner(info, d.owner):
			return 0, fmt.Errorf("%s/%s/%s: %w: it has another owner", d.name, treeName, p, errUntrusted)
		case d.isDir[p] && info.IsDir():
			n, err := d.inspectTree(p, complete, seen)
			if err != nil {
				return 0, err
			}
			allocated += n
		case !listed || !info.Mode().IsRegular() || !oneLink(info):
			return 0, fmt.Errorf("%s/%s/%s: %w: a %s", d.name, treeName, p, errUntrusted, kind(info))
		case complete && info.Size() != d.files[i].Size:
			return 0, fmt.Errorf("file %q has %d bytes, want %d: somebody changed it", p, info.Size(), d.files[i].Size)
		default:
			*seen++
			allocated += min(blocks(info), d.files[i].Size)
		}
	}
	return allocated, nil
}

// kind describes a file in a message.
func kind(info fs.FileInfo) string {
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}
