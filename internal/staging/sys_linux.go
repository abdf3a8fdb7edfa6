// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
)

// File systems that keep files in memory, from linux/magic.h.
const (
	magicTmpfs = 0x01021994
	magicRamfs = 0x858458f6
)

// reserve allocates, so that a full disk shows now and not at byte n. File
// systems without the call get a file with a hole. The size comes last: a file
// of the right size is one that has its blocks.
//
// Files in memory get a hole too, if there is room for them: allocating them
// takes as long as writing them does, but on one core and before the first
// write. Others may still take that room, and then a write finds out.
func reserve(f *os.File, size int64) error {
	free, memory, err := space(f)
	if err != nil {
		return err
	}
	if memory && free >= 0 && size > free {
		return &os.PathError{Op: "reserve", Path: f.Name(), Err: syscall.ENOSPC}
	}
	if size > 0 && !memory {
		err := withFD(f, func(fd int) error {
			for {
				if err := syscall.Fallocate(fd, 0, 0, size); err != syscall.EINTR {
					return err
				}
			}
		})
		if err != nil && !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENOSYS) {
			return err
		}
	}
	return f.Truncate(size)
}

func space(f *os.File) (free int64, memory bool, err error) {
	var st syscall.Statfs_t
	if err := withFD(f, func(fd int) error { return syscall.Fstatfs(fd, &st) }); err != nil {
		return 0, false, err
	}
	memory = uint32(st.Type) == magicTmpfs || uint32(st.Type) == magicRamfs
	// A file system that reports no size at all does not count its blocks.
	if st.Blocks == 0 || st.Bsize <= 0 {
		return -1, memory, nil
	}
	if st.Bavail > uint64(1<<63-1)/uint64(st.Bsize) {
		return 1<<63 - 1, memory, nil
	}
	return int64(st.Bavail) * int64(st.Bsize), memory, nil
}

// otherMount compares devices, and mounts too where /proc is there: a bind
// mount of the same file system has the same device.
func otherMount(parent, child *os.File) (bool, error) {
	a, err := parent.Stat()
	if err != nil {
		return false, err
	}
	b, err := child.Stat()
	if err != nil {
		return false, err
	}
	if a.Sys().(*syscall.Stat_t).Dev != b.Sys().(*syscall.Stat_t).Dev {
		return true, nil
	}
	return mountID(parent) != mountID(child), nil
}

// mountID is the mount that f is on, empty where /proc does not say.
func mountID(f *os.File) (id string) {
	withFD(f, func(fd int) error {
		info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
		if err != nil {
			return err
		}
		for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
			if v, ok := strings.CutPrefix(lines.Text(), "mnt_id:"); ok {
				id = strings.TrimSpace(v)
			}
		}
		return nil
	})
	return id
}
