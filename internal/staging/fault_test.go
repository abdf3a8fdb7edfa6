// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package staging_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// places are the two ways in which a destination is filled.
var places = map[string]bool{"beside": false, "inside": true}

// stage does what a pull does, from Create to Publish.
func stage(sys *staging.Faulty, dest string) error {
	d, err := staging.CreateOn(sys, dest, id, model)
	if err != nil {
		return err
	}
	if err := fill(d); err != nil {
		return errors.Join(err, d.Abort(true))
	}
	if err := d.Publish(); err != nil {
		return errors.Join(err, d.Abort(true))
	}
	return nil
}

// destination makes a parent directory, and where the model is staged inside,
// the destination.
func destination(t *testing.T, inside bool) string {
	t.Helper()
	dest := filepath.Join(t.TempDir(), "model")
	if inside {
		if err := os.Mkdir(dest, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dest
}

// visible reports whether a reader takes dest for the model, and demands that
// it then is.
func visible(t *testing.T, dest string, inside bool) bool {
	t.Helper()
	mark := filepath.Join(dest, staging.MarkComplete)
	if _, err := os.Lstat(mark); inside && err == nil {
		wantWhole(t, dest)
		return true
	}
	entries, err := os.ReadDir(dest)
	if inside || errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return false
	}
	wantWhole(t, dest)
	return true
}

// leftovers are staging directories that still hold files.
func leftovers(t *testing.T, dest string) []string {
	t.Helper()
	beside, err := filepath.Glob(filepath.Join(filepath.Dir(dest), ".model.modelsec-*", "files"))
	if err != nil {
		t.Fatal(err)
	}
	inside, err := filepath.Glob(filepath.Join(dest, ".modelsec-*", "files", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return append(beside, inside...)
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Skip("no /dev/fd to count open files in: ", err)
	}
	return len(entries)
}

// TestEveryFaultLeavesTheDestinationAbsentOrWhole fails the first operation,
// then the second and so on until none is left to fail, and after each looks
// at the destination and pulls again on a disk that works.
func TestEveryFaultLeavesTheDestinationAbsentOrWhole(t *testing.T) {
	for place, inside := range places {
		for fault, resume := range map[syscall.Errno]bool{syscall.EIO: true, syscall.ENOSPC: false, syscall.EACCES: false} {
			t.Run(fmt.Sprintf("%s/resume=%v/%v", place, resume, fault), func(t *testing.T) {
				for n := 1; faultAt(t, n, inside, resume, fault); n++ {
				}
			})
		}
	}
}

// faultAt fails operation n, and reports whether there was one.
func faultAt(t *testing.T, n int, inside, resume bool, fault error) bool {
	t.Helper()
	dest := destination(t, inside)
	if resume {
		d, err := staging.CreateOn(&staging.Faulty{Inside: inside}, dest, id, model)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fillFile(d, 1), d.Abort(true)); err != nil {
			t.Fatal(err)
		}
	}
	var what string
	count, before := 0, openFiles(t)
	err := stage(&staging.Faulty{Inside: inside, Before: func(op, name string) error {
		if count++; count != n {
			return nil
		}
		what = op + " " + name
		return fault
	}}, dest)
	if after := openFiles(t); after != before {
		t.Errorf("operation %d, %s: %d open files before, %d after", n, what, before, after)
	}
	whole := visible(t, dest, inside)
	if err == nil && !whole {
		t.Errorf("operation %d, %s: success, but nothing is there", n, what)
	}
	switch again := stage(&staging.Faulty{Inside: inside}, dest); {
	case whole && !errors.Is(again, staging.ErrExists):
		t.Errorf("operation %d, %s: again: got %v, want ErrExists", n, what, again)
	case !whole && again != nil:
		t.Errorf("operation %d, %s: %v; again: %v", n, what, err, again)
	case !visible(t, dest, inside):
		t.Errorf("operation %d, %s: nothing is there after another try", n, what)
	}
	if left := leftovers(t, dest); len(left) > 0 && !strings.HasPrefix(what, "removeAll ") {
		t.Errorf("operation %d, %s: left %q", n, what, left)
	}
	if t.Failed() {
		t.FailNow()
	}
	return what != ""
}

// TestAFailedCreateLeavesNothing sweeps the operations of Create alone.
func TestAFailedCreateLeavesNothing(t *testing.T) {
	for n, over := 1, false; !over; n++ {
		dest := destination(t, false)
		count, what := 0, ""
		d, err := staging.CreateOn(&staging.Faulty{Before: func(op, name string) error {
			if count++; count != n {
				return nil
			}
			what = op + " " + name
			return syscall.EIO
		}}, dest, id, model)
		count = n // Abort is not swept
		if over = what == ""; over {
			if err := d.Abort(false); err != nil {
				t.Error(err)
			}
		} else if err == nil {
			t.Fatalf("operation %d, %s: success", n, what)
		}
		wantOnly(t, filepath.Dir(dest))
		if t.Failed() {
			t.Fatalf("operation %d, %s", n, what)
		}
	}
}

// TestAbortKeepsWhatIsHalfMoved lets every rename fail from the k-th entry on,
// so that what was moved cannot be moved back.
func TestAbortKeepsWhatIsHalfMoved(t *testing.T) {
	for k := 2; k <= 3; k++ { // the first sets the mark
		dest := destination(t, true)
		moves := 0
		d, err := staging.CreateOn(&staging.Faulty{Inside: true, Before: func(op, name string) error {
			if op != "rename" {
				return nil
			}
			if moves++; moves > k {
				return syscall.EROFS
			}
			return nil
		}}, dest, id, model)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(fill(d), d.Publish()); !errors.Is(err, syscall.EROFS) {
			t.Fatalf("got %v, want EROFS", err)
		}
		if err := d.Abort(false); err != nil {
			t.Error(err)
		}
		if visible(t, dest, true) {
			t.Error("half a model is said to be complete")
		}
		again, err := staging.CreateOn(&staging.Faulty{Inside: true}, dest, id, model)
		if err != nil {
			t.Fatal(err)
		}
		if !again.Resumed() {
			t.Error("what was moved is lost")
		}
		if err := errors.Join(fill(again), again.Publish()); err != nil {
			t.Fatal(err)
		}
		if !visible(t, dest, true) {
			t.Error("nothing is there")
		}
	}
}
