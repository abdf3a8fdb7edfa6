// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestPullToADiskThatIsTooSmallFetchesNothing: the caller can tell what is wrong,
// and the same pull works when there is room.
func TestPullToADiskThatIsTooSmallFetchesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs the superuser")
		}
		t.Skip("needs the superuser")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("the superuser may not mount here: %v", err)
	}
	defer syscall.Unmount(disk, 0)
	p := newParty(t)
	for profile, options := range p.profiles() {
		counting := &evil{Opener: registry.NewMemory()}
		c := p.client(counting)
		push(t, c, tagged, large(), options())
		dest := filepath.Join(disk, profile)
		_, err := c.Pull(t.Context(), tagged, dest, p.policy(), nil)
		refused(t, err, modelsec.ErrNoSpace)
		absent(t, dest)
		if n := counting.fetched.Load(); n != 0 {
			t.Errorf("%s: %d bytes were fetched for a disk that cannot hold them", profile, n)
		}
		if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=8m"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dest, large())
		if err := os.RemoveAll(dest); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("", disk, "", syscall.MS_REMOUNT, "size=1m"); err != nil {
			t.Fatal(err)
		}
	}
}
