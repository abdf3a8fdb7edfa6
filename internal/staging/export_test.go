// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging

import (
	"io/fs"
	"os"
)

// Faulty is a disk that asks before every operation whether it shall fail. It
// does not really sync.
type Faulty struct {
	Before func(op, name string) error // nil never fails
	Inside bool                        // the destination is a mount point
	NoLock bool                        // every process gets every lock
	Free   int64                       // space on the disk, if above 0
}

// CreateOn is Create on another disk.
func CreateOn(f *Faulty, dest, id string, files []File) (*Dir, error) {
	return create(f, dest, id, files)
}

func (f *Faulty) ask(op, name string) error {
	if f.Before == nil {
		return nil
	}
	if err := f.Before(op, name); err != nil {
		return &fs.PathError{Op: op, Path: name, Err: err}
	}
	return nil
}

func (f *Faulty) mkdir(dir *os.Root, name string, perm fs.FileMode) error {
	if err := f.ask("mkdir", name); err != nil {
		return err
	}
	return osDisk{}.mkdir(dir, name, perm)
}

func (f *Faulty) open(dir *os.Root, name string, flag int) (*os.File, error) {
	if err := f.ask("open", name); err != nil {
		return nil, err
	}
	return osDisk{}.open(dir, name, flag)
}

func (f *Faulty) openRoot(dir *os.Root, name string) (*os.Root, error) {
	if err := f.ask("openRoot", name); err != nil {
		return nil, err
	}
	return osDisk{}.openRoot(dir, name)
}

func (f *Faulty) lstat(dir *os.Root, name string) (fs.FileInfo, error) {
	if err := f.ask("lstat", name); err != nil {
		return nil, err
	}
	return osDisk{}.lstat(dir, name)
}

func (f *Faulty) list(dir *os.Root, name string) ([]string, error) {
	if err := f.ask("list", name); err != nil {
		return nil, err
	}
	return osDisk{}.list(dir, name)
}

func (f *Faulty) rename(dir *os.Root, from, to string) error {
	if err := f.ask("rename", to); err != nil {
		return err
	}
	return osDisk{}.rename(dir, from, to)
}

func (f *Faulty) remove(dir *os.Root, name string) error {
	if err := f.ask("remove", name); err != nil {
		return err
	}
	return osDisk{}.remove(dir, name)
}

func (f *Faulty) removeAll(dir *os.Root, name string) error {
	if err := f.ask("removeAll", name); err != nil {
		return err
	}
	return osDisk{}.removeAll(dir, name)
}

// write writes half where it fails.
func (f *Faulty) write(file *os.File, p []byte, off int64) error {
	if err := f.ask("write", file.Name()); err != nil {
		file.WriteAt(p[:len(p)/2], off)
		return err
	}
	return osDisk{}.write(file, p, off)
}

func (f *Faulty) read(file *os.File, p []byte, off int64) error {
	if err := f.ask("read", file.Name()); err != nil {
		return err
	}
	return osDisk{}.read(file, p, off)
}

func (f *Faulty) reserve(file *os.File, size int64) error {
	if err := f.ask("reserve", file.Name()); err != nil {
		return err
	}
	return osDisk{}.reserve(file, size)
}

func (f *Faulty) sync(file *os.File) error { return f.ask("sync", file.Name()) }

func (f *Faulty) syncDir(_ *os.Root, name string) error { return f.ask("syncDir", name) }

func (f *Faulty) lock(file *os.File) error {
	if err := f.ask("lock", file.Name()); err != nil || f.NoLock {
		return err
	}
	return osDisk{}.lock(file)
}

func (f *Faulty) space(file *os.File) (int64, bool, error) {
	if err := f.ask("space", file.Name()); err != nil {
		return 0, false, err
	}
	if f.Free > 0 {
		return f.Free, false, nil
	}
	return osDisk{}.space(file)
}

func (f *Faulty) mounted(dir *os.Root, name string) (bool, error) {
	if err := f.ask("mounted", name); err != nil || f.Inside {
		return true, err
	}
	return osDisk{}.mounted(dir, name)
}
