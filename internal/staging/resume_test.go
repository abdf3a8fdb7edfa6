// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package staging_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// kept makes a destination for which an earlier process left one file done
// and the first piece of another, and returns its staging directory too.
func kept(t *testing.T) (dest, dir string) {
	t.Helper()
	dest = filepath.Join(t.TempDir(), "model")
	d := create(t, dest)
	if d.Resumed() {
		t.Error("a first Create is said to resume")
	}
	if err := errors.Join(fillFile(d, 0), d.WriteAt(1, content(1)[:piece], 0), d.PutRecord(2, []byte("record 2")), d.Abort(true)); err != nil {
		t.Fatal(err)
	}
	return dest, filepath.Join(filepath.Dir(dest), ".model.modelsec-"+id)
}

func TestCreateResumesWhatAnEarlierProcessLeft(t *testing.T) {
	dest, dir := kept(t)
	d := create(t, dest)
	if !d.Resumed() {
		t.Fatal("Create took a new directory")
	}
	got := make([]byte, piece)
	if err := d.ReadAt(1, got, 0); err != nil || !bytes.Equal(got, content(1)[:piece]) {
		t.Errorf("first piece: %v", err)
	}
	if err := d.ReadAt(1, got, piece); err != nil || !bytes.Equal(got, make([]byte, piece)) {
		t.Errorf("a piece that was not written: %v, want zeros", err)
	}
	if err := d.ReadAt(2, got[:1], 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was not begun: got %v, want ErrNotExist", err)
	}
	rec := make([]byte, 8)
	if err := d.Record(2, rec); err != nil || string(rec) != "record 2" {
		t.Errorf("journal: %q, %v", rec, err)
	}
	if err := d.Record(3, rec); err == nil {
		t.Error("a record beyond the end was read")
	}
	if err := errors.Join(fill(d), d.Publish()); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, dest)
	wantOnly(t, filepath.Dir(dest), "model")
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the staging directory is still there")
	}
}

func TestAbortRemovesWhatItIsNotToldToKeep(t *testing.T) {
	dest, _ := kept(t)
	if err := create(t, dest).Abort(false); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, filepath.Dir(dest))
}

func TestACreateThatFailsKeepsWhatAnEarlierProcessLeft(t *testing.T) {
	dest, _ := kept(t)
	_, err := staging.CreateOn(&staging.Faulty{Before: func(op, _ string) error {
		if op == "space" {
			return syscall.EIO
		}
		return nil
	}}, dest, id, model)
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("got %v, want EIO", err)
	}
	if !create(t, dest).Resumed() {
		t.Error("it is gone")
	}
}

func TestAnotherIDIsNotResumed(t *testing.T) {
	dest, _ := kept(t)
	d, err := staging.Create(dest, strings.Repeat("f", 16), model)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	if d.Resumed() {
		t.Error("the directory of another id was taken up")
	}
}

// TestCreateDoesNotResumeWhatOthersCouldTouch plants one thing each in what an
// earlier process left: Create must take a new directory, publish from it, and
// change neither the planted thing nor what it points to.
func TestCreateDoesNotResumeWhatOthersCouldTouch(t *testing.T) {
	replace := func(name string, plant func(name, victim string) error) func(dir, victim string) error {
		return func(dir, victim string) error {
			name := filepath.Join(dir, name)
			return errors.Join(os.RemoveAll(name), plant(name, victim))
		}
	}
	symlink := func(name, victim string) error { return os.Symlink(victim, name) }
	hardlink := func(name, victim string) error { return os.Link(victim, name) }
	for name, plant := range map[string]func(dir, victim string) error{
		"a file that is a symbolic link":      replace("files/config.json", symlink),
		"a file with another link":            replace("files/config.json", hardlink),
		"a file that is a directory":          replace("files/config.json", func(name, _ string) error { return os.Mkdir(name, 0o755) }),
		"a file that is a pipe":               replace("files/config.json", func(name, _ string) error { return syscall.Mkfifo(name, 0o644) }),
		"a directory that is a symbolic link": replace("files/a", func(name, victim string) error { return os.Symlink(filepath.Dir(victim), name) }),
		"a file that is not of the model":     replace("files/a/more.bin", func(name, _ string) error { return os.WriteFile(name, nil, 0o644) }),
		"a link inside the directory":         replace("files/empty", func(name, _ string) error { return os.Symlink("config.json", name) }),
		"a tree that is a symbolic link":      replace("files", func(name, victim string) error { return os.Symlink(filepath.Dir(victim), name) }),
		"a journal that is a symbolic link":   replace("journal", symlink),
		"a journal with another link":         replace("journal", hardlink),
		"something beside the tree":           replace("other", hardlink),
		"a directory of mode 0755":            func(dir, _ string) error { return os.Chmod(dir, 0o755) },
		"a staging directory that is a link": func(dir, victim string) error {
			return errors.Join(os.Rename(dir, dir+"-moved"), os.Symlink(filepath.Base(dir)+"-moved", dir))
		},
		"a staging directory that is a file": replace("", func(name, _ string) error { return os.WriteFile(name, nil, 0o600) }),
		"a parent that others can write":     func(dir, _ string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
		"a parent that the group can write":  func(dir, _ string) error { return os.Chmod(filepath.Dir(dir), 0o775) },
		"a file of another user": func(dir, _ string) error {
			return chown(filepath.Join(dir, "files/config.json"))
		},
		"a directory of another user": func(dir, _ string) error {
			return filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error { return errors.Join(err, chown(p)) })
		},
		"a parent of another user": func(dir, _ string) error { return chown(filepath.Dir(dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			if strings.HasSuffix(name, "of another user") {
				needRoot(t)
			}
			dest, dir := kept(t)
			victim := filepath.Join(t.TempDir(), "victim")
			if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := plant(dir, victim); err != nil {
				t.Fatal(err)
			}
			before := openFiles(t)
			d := create(t, dest)
			if d.Resumed() {
				t.Error("Create took it up")
			}
			if err := errors.Join(fill(d), d.Publish()); err != nil {
				t.Fatal(err)
			}
			wantWhole(t, dest)
			if after := openFiles(t); after != before {
				t.Errorf("%d open files before, %d after", before, after)
			}
			if b, err := os.ReadFile(victim); err != nil || string(b) != "precious" {
				t.Errorf("the victim holds %q, %v", b, err)
			}
			if _, err := os.Lstat(dir); err != nil {
				t.Errorf("what was not ours was removed: %v", err)
			}
		})
	}
}

// chown gives a file to a user that no system uses.
func chown(name string) error { return os.Lchown(name, 54321, 54321) }

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs the superuser")
	}
	t.Skip("needs the superuser")
}

// TestADirectoryThatIsSwappedWhileItIsOpenedIsNotUsed puts a link to another
// directory in the place of one that was looked at and is about to be opened.
func TestADirectoryThatIsSwappedWhileItIsOpenedIsNotUsed(t *testing.T) {
	for name, c := range map[string]struct {
		inside   bool
		op, name string
		want     error
	}{
		"the staging directory":            {op: "openRoot", name: ".model.modelsec-" + id},
		"the staging directory, once open": {op: "lock", name: ".model.modelsec-" + id},
		"the destination":                  {inside: true, op: "openRoot", name: "model", want: staging.ErrExists},
	} {
		t.Run(name, func(t *testing.T) {
			dest := destination(t, c.inside)
			name := filepath.Join(filepath.Dir(dest), c.name)
			other := filepath.Join(filepath.Dir(dest), "other")
			if err := os.Mkdir(other, 0o700); err != nil {
				t.Fatal(err)
			}
			swapped := false
			err := stage(&staging.Faulty{Inside: c.inside, Before: func(op, _ string) error {
				if op != c.op || swapped {
					return nil
				}
				swapped = true
				return errors.Join(os.Rename(name, name+"-moved"), os.Symlink("other", name))
			}}, dest)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err == nil {
				wantWhole(t, dest)
			}
			if !swapped {
				t.Error("nothing was swapped")
			}
			wantOnly(t, other)
		})
	}
}

// TestCreateResumesInAStickyParent: others can write /tmp, but not rename or
// remove what is ours there.
func TestCreateResumesInAStickyParent(t *testing.T) {
	dest, _ := kept(t)
	if err := os.Chmod(filepath.Dir(dest), 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if !create(t, dest).Resumed() {
		t.Error("Create took a new directory")
	}
}

func TestALiveProcessKeepsItsDirectory(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "model")
	first, second := create(t, dest), create(t, dest)
	if second.Resumed() {
		t.Error("the directory of a live process was taken up")
	}
	if err := errors.Join(fill(first), fill(second), second.Publish()); err != nil {
		t.Fatal(err)
	}
	if err := first.Publish(); !errors.Is(err, staging.ErrExists) {
		t.Errorf("got %v, want ErrExists", err)
	}
	if err := first.Abort(false); err != nil {
		t.Error(err)
	}
	wantWhole(t, dest)
	wantOnly(t, filepath.Dir(dest), "model")
}

func TestADirectoryThatNoLaterCreateFindsIsNotKept(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "model")
	first, second := create(t, dest), create(t, dest)
	if err := errors.Join(fillFile(first, 1), fillFile(second, 1), second.Abort(true), first.Abort(true)); err != nil {
		t.Fatal(err)
	}
	wantOnly(t, filepath.Dir(dest), ".model.modelsec-"+id)
}

func TestPublishRefusesADirectoryThatChanged(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"a file was removed":   func(dir string) error { return os.Remove(filepath.Join(dir, "files/config.json")) },
		"a file was cut":       func(dir string) error { return os.Truncate(filepath.Join(dir, "files/config.json"), 3) },
		"a file was linked":    func(dir string) error { return os.Link(filepath.Join(dir, "files/empty"), dir+"-link") },
		"a file was added":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "files/a/more"), nil, 0o644) },
		"a directory is added": func(dir string) error { return os.Mkdir(filepath.Join(dir, "files/more"), 0o755) },
		"all was removed":      os.RemoveAll,
		"it was replaced": func(dir string) error {
			return errors.Join(os.Rename(dir, dir+"-moved"), os.CopyFS(dir, os.DirFS(dir+"-moved")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "model")
			d := create(t, dest)
			if err := errors.Join(fill(d), change(filepath.Join(filepath.Dir(dest), ".model.modelsec-"+id))); err != nil {
				t.Fatal(err)
			}
			if err := d.Publish(); err == nil {
				t.Error("Publish succeeded")
			}
			if err := d.Abort(false); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the destination is there: %v", err)
			}
			if left, err := filepath.Glob(filepath.Join(filepath.Dir(dest), ".model.modelsec-"+id, "files")); name == "it was replaced" && len(left) == 0 {
				t.Errorf("Abort removed a directory that is not its own: %v", err)
			}
		})
	}
}

func TestModesFollowTheUmask(t *testing.T) {
	for _, mask := range []int{0o022, 0o077, 0o002} {
		dest := filepath.Join(t.TempDir(), "model")
		old := syscall.Umask(mask)
		d, err := staging.Create(dest, id, model)
		if err == nil {
			err = errors.Join(fill(d), d.Publish())
		}
		syscall.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]fs.FileMode{".": 0o755, "a/b": 0o755, "config.json": 0o644, "a/b/c/weights.bin": 0o644} {
			info, err := os.Lstat(filepath.Join(dest, name))
			if err != nil {
				t.Fatal(err)
			}
			if want &^= fs.FileMode(mask); info.Mode().Perm() != want {
				t.Errorf("umask %#o: %s has mode %v, want %v", mask, name, info.Mode().Perm(), want)
			}
		}
	}
}
