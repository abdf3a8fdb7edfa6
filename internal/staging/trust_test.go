// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package staging_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

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
