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
