// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging

import (
	"errors"
	"io/fs"
	"os"
)

// disk is every operation of this package that the world outside can make
// fail. Tests wrap it to fail the first, the second and so on, each once.
//
// Names are relative to a root, and never resolve to anything outside it. A
// name that is a symbolic link inside it would be followed by open and
// openRoot: callers lstat first and compare afterwards.
type disk interface {
	mkdir(dir *os.Root, name string, perm fs.FileMode) error
	open(dir *os.Root, name string, flag int) (*os.File, error)
	openRoot(dir *os.Root, name string) (*os.Root, error)
	lstat(dir *os.Root, name string) (fs.FileInfo, error)
	list(dir *os.Root, name string) ([]string, error)
	rename(dir *os.Root, from, to string) error
	remove(dir *os.Root, name string) error
	removeAll(dir *os.Root, name string) error
	write(f *os.File, p []byte, off int64) error
	read(f *os.File, p []byte, off int64) error
	// reserve gives f the size, and blocks where the file system can.
	reserve(f *os.File, size int64) error
	sync(f *os.File) error
	syncDir(dir *os.Root, name string) error
	// lock takes an advisory lock that ends with f: errLocked where another
	// holds it, nil too where the file system has none.
	lock(f *os.File) error
	// space says how many bytes are free for us, -1 where unknown, and
	// whether they are memory.
	space(f *os.File) (free int64, memory bool, err error)
	// mounted reports whether name is on another mount than dir.
	mounted(dir *os.Root, name string) (bool, error)
}

// errLocked says that a live process holds the lock.
var errLocked = errors.New("in use by another process")

type osDisk struct{}

func (osDisk) mkdir(dir *os.Root, name string, perm fs.FileMode) error { return dir.Mkdir(name, perm) }

func (osDisk) open(dir *os.Root, name string, flag int) (*os.File, error) {
	return dir.OpenFile(name, flag, 0o644)
}

func (osDisk) openRoot(dir *os.Root, name string) (*os.Root, error) { return dir.OpenRoot(name) }

func (osDisk) lstat(dir *os.Root, name string) (fs.FileInfo, error) { return dir.Lstat(name) }

func (osDisk) list(dir *os.Root, name string) ([]string, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}

func (osDisk) rename(dir *os.Root, from, to string) error { return dir.Rename(from, to) }

func (osDisk) remove(dir *os.Root, name string) error { return dir.Remove(name) }

func (osDisk) removeAll(dir *os.Root, name string) error { return dir.RemoveAll(name) }

func (osDisk) write(f *os.File, p []byte, off int64) error {
	_, err := f.WriteAt(p, off)
	return err
}

func (osDisk) read(f *os.File, p []byte, off int64) error {
	_, err := f.ReadAt(p, off)
	return err
}

func (osDisk) reserve(f *os.File, size int64) error { return reserve(f, size) }

func (osDisk) sync(f *os.File) error { return f.Sync() }

func (osDisk) syncDir(dir *os.Root, name string) error {
	if !syncsDirectories {
		return nil
	}
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (osDisk) lock(f *os.File) error { return lock(f) }

func (osDisk) space(f *os.File) (int64, bool, error) { return space(f) }

func (osDisk) mounted(dir *os.Root, name string) (bool, error) {
	parent, err := dir.Open(".")
	if err != nil {
		return false, err
	}
	defer parent.Close()
	child, err := dir.Open(name)
	if err != nil {
		return false, err
	}
	defer child.Close()
	return otherMount(parent, child)
}
