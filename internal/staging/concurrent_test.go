// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package staging_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// TestConcurrentPullsOfOneDestinationLeaveItWhole runs 16 at once, with locks
// that work and with locks that everybody gets, as on some network disks.
func TestConcurrentPullsOfOneDestinationLeaveItWhole(t *testing.T) {
	for place, inside := range places {
		for _, noLock := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/noLock=%v", place, noLock), func(t *testing.T) {
				for range 5 {
					dest := destination(t, inside)
					before := openFiles(t)
					errs := make([]error, 16)
					var all sync.WaitGroup
					for i := range errs {
						all.Go(func() { errs[i] = stage(&staging.Faulty{Inside: inside, NoLock: noLock}, dest) })
					}
					all.Wait()
					published := 0
					for _, err := range errs {
						switch {
						case err == nil:
							published++
						case !noLock && !errors.Is(err, staging.ErrExists):
							t.Errorf("got %v, want ErrExists", err)
						}
					}
					if after := openFiles(t); after != before {
						t.Errorf("%d open files before, %d after", before, after)
					}
					if !noLock && (published != 1 || !visible(t, dest, inside)) || published > 1 {
						t.Fatalf("%d of them published: %v", published, errors.Join(errs...))
					}
					if published == 0 && visible(t, dest, inside) {
						t.Errorf("nobody published, and it is there: %v", errors.Join(errs...))
					}
				}
			})
		}
	}
}

// many are more files than may be open.
func many(n int) []staging.File {
	files := make([]staging.File, n)
	for i := range files {
		files[i] = staging.File{Path: fmt.Sprintf("%d/%d", i%7, i), Size: 64}
	}
	return files
}

func TestOpenFilesAreBounded(t *testing.T) {
	files := many(300)
	dest := filepath.Join(t.TempDir(), "model")
	before := openFiles(t)
	d, err := staging.Create(dest, id, files)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	for _, half := range []int64{0, 32} {
		for i := range files {
			if err := d.WriteAt(i, bytes.Repeat([]byte{byte(i)}, 32), half); err != nil {
				t.Fatal(err)
			}
		}
		if n := openFiles(t) - before; n > 70 {
			t.Errorf("%d files are open", n)
		}
	}
	for i := range files {
		if err := d.Done(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
	for i, f := range files {
		if b, err := os.ReadFile(filepath.Join(dest, f.Path)); err != nil || !bytes.Equal(b, bytes.Repeat([]byte{byte(i)}, 64)) {
			t.Errorf("%s: %x, %v", f.Path, b, err)
		}
	}
}

// TestAFileIsSyncedBeforeItIsClosed: where a file must make room for another,
// an error of writing it back is not lost.
func TestAFileIsSyncedBeforeItIsClosed(t *testing.T) {
	files := many(80)
	dest := filepath.Join(t.TempDir(), "model")
	d, err := staging.CreateOn(&staging.Faulty{Before: func(op, _ string) error {
		if op == "sync" {
			return syscall.EIO
		}
		return nil
	}}, dest, id, files)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	failed := 0
	for i := range files {
		if err := d.WriteAt(i, []byte{1}, 0); errors.Is(err, syscall.EIO) {
			failed++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if failed != 80-64 {
		t.Errorf("%d writes met the error, want one for each file above 64", failed)
	}
}

func TestDoneLeavesTheFileToCallsUnderWay(t *testing.T) {
	var d *staging.Dir
	sys := &staging.Faulty{Before: func(op, name string) error {
		if op == "read" {
			return d.Done(0)
		}
		return nil
	}}
	d, err := staging.CreateOn(sys, filepath.Join(t.TempDir(), "model"), id, model)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	got := make([]byte, model[0].Size)
	if err := errors.Join(d.WriteAt(0, content(0), 0), d.ReadAt(0, got, 0)); err != nil || !bytes.Equal(got, content(0)) {
		t.Errorf("got %x, %v", got, err)
	}
}

// TestAFileThatAnotherProcessCreatesFirstIsShared: without locks two may fill
// one directory.
func TestAFileThatAnotherProcessCreatesFirstIsShared(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "model")
	first := true
	d, err := staging.CreateOn(&staging.Faulty{Before: func(op, name string) error {
		if op != "open" || name != "files/config.json" || !first {
			return nil
		}
		first = false
		return os.WriteFile(filepath.Join(filepath.Dir(dest), ".model.modelsec-"+id, name), []byte("x"), 0o644)
	}}, dest, id, model)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	if err := errors.Join(fill(d), d.Publish()); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, dest)
}

func TestOneDirServesConcurrentWriters(t *testing.T) {
	files := many(200)
	dest := filepath.Join(t.TempDir(), "model")
	d, err := staging.Create(dest, id, files)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			for i := range files {
				if err := d.WriteAt(i, []byte{byte(i), byte(w), byte(i), byte(w)}, int64(w)*4); err != nil {
					t.Error(err)
				}
				if err := d.PutRecord(int64(i), []byte{byte(i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	for i := range files {
		all.Go(func() {
			if err := d.Done(i); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if err := d.Publish(); err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		b, err := os.ReadFile(filepath.Join(dest, f.Path))
		for w := range 16 {
			if err != nil || !bytes.Equal(b[w*4:w*4+4], []byte{byte(i), byte(w), byte(i), byte(w)}) {
				t.Fatalf("%s: %x, %v", f.Path, b, err)
			}
		}
	}
}

func TestAbortStopsConcurrentWriters(t *testing.T) {
	before := openFiles(t)
	d := create(t, filepath.Join(t.TempDir(), "model"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				if err := d.WriteAt(1, content(1), 0); err != nil {
					if !errors.Is(err, fs.ErrClosed) {
						t.Errorf("got %v, want ErrClosed", err)
					}
					return
				}
			}
		})
	}
	if err := d.Abort(false); err != nil {
		t.Error(err)
	}
	all.Wait()
	if after := openFiles(t); after != before {
		t.Errorf("%d open files before, %d after", before, after)
	}
}
