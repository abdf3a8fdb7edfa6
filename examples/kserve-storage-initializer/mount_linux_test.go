// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// volume is what a pod gets: a mount point in memory.
func volume(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only the superuser may mount")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("the superuser may not mount here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestContainerThatStartsAgainLoadsTheModelAnew(t *testing.T) {
	c := newCluster(t)
	dir := volume(t)
	if status, err := c.run(t.Context(), c.uri, dir); status != statusDone {
		t.Fatalf("status %d: %v", status, err)
	}
	sameFiles(t, c.model, dir)
	// What the server could write to, it may have changed.
	write(t, filepath.Join(dir, "config.json"), []byte("poisoned"))
	write(t, filepath.Join(dir, "more", "of.it"), []byte("poisoned"))
	if status, err := c.run(t.Context(), c.uri, dir); status != statusDone {
		t.Fatalf("second run: status %d: %v", status, err)
	}
	sameFiles(t, c.model, dir)
	wantAbsent(t, filepath.Join(dir, "more"))
}

func TestVolumeOfARefusedModelStaysEmpty(t *testing.T) {
	c := newCluster(t)
	delete(c.env, "MODELSEC_IDENTITY")
	dir := volume(t)
	if status, err := c.run(t.Context(), c.uri, dir); status != statusNoKey {
		t.Errorf("status %d, want %d: %v", status, statusNoKey, err)
	}
	if entries := must(os.ReadDir(dir)); len(entries) != 0 {
		t.Errorf("volume has %v", entries)
	}
}
