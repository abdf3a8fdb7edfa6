// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// mount mounts at a new directory in a new parent.
func mount(t *testing.T, source, kind, data string, flags uintptr) string {
	t.Helper()
	needRoot(t)
	dest := destination(t, true)
	if err := syscall.Mount(source, dest, kind, flags, data); err != nil {
		t.Skipf("the superuser may not mount %s here: %v", kind, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dest, 0); err != nil {
			t.Error(err)
		}
	})
	return dest
}

func pull(t *testing.T, dest string) *staging.Dir {
	t.Helper()
	d := create(t, dest)
	if err := errors.Join(fill(d), d.Publish()); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAMountPointIsFilledFromInside(t *testing.T) {
	for name, m := range map[string]struct {
		kind, data string
		flags      uintptr
	}{
		"tmpfs": {"tmpfs", "size=8m", 0},
		"ramfs": {"ramfs", "", 0},                   // no fallocate, no statfs numbers
		"bind":  {"", "", uintptr(syscall.MS_BIND)}, // the same device
	} {
		t.Run(name, func(t *testing.T) {
			dest := mount(t, t.TempDir(), m.kind, m.data, m.flags)
			if err := os.Mkdir(filepath.Join(dest, "lost+found"), 0o700); err != nil {
				t.Fatal(err)
			}
			d := pull(t, dest)
			if name != "bind" && !d.MemoryBacked() {
				t.Error("the files are not said to lie in memory")
			}
			if !visible(t, dest, true) {
				t.Error("no mark of completion")
			}
			wantOnly(t, dest, ".modelsec-complete", "a", "config.json", "empty", "lost+found")
			wantOnly(t, filepath.Dir(dest), "model")
		})
	}
}

func TestAFullTmpfsIsErrNoSpace(t *testing.T) {
	dest := filepath.Join(mount(t, "tmpfs", "tmpfs", "size=1m", 0), "model")
	big := []staging.File{{Path: "a", Size: 2 << 20}}
	_, err := staging.Create(dest, id, big)
	wantNoSpace(t, err, 2<<20, -1)
	big[0].Size = 700 << 10
	d, err := staging.Create(dest, id, big)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort(false)
	other := filepath.Join(filepath.Dir(dest), "other")
	if err := os.WriteFile(other, make([]byte, 500<<10), 0o644); err != nil {
		t.Fatal(err)
	}
	// The space is taken before the first byte, not found missing at the last.
	wantNoSpace(t, d.WriteAt(0, []byte{1}, 0), 700<<10, -1)
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.WriteAt(0, []byte{1}, 0), d.Abort(true)); err != nil {
		t.Fatal(err)
	}
	// 700 of 1,024 KiB are ours already.
	again, err := staging.Create(dest, id, big)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Abort(false)
	if err := errors.Join(again.Done(0), again.Publish()); err != nil {
		t.Fatal(err)
	}
}
