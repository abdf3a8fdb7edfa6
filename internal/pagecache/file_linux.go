// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pagecache

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var pageSize = int64(os.Getpagesize())

// open returns the file behind f, if there is one.
func open(f any) file {
	c, ok := f.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	return descriptor{raw}
}

type descriptor struct{ syscall.RawConn }

// cached asks cachestat, which kernels have from 6.5 on. From others everything
// is said to be cached, so that nothing is dropped.
func (d descriptor) cached(offset, length int64) bool {
	var stat unix.Cachestat_t
	var failed error
	if err := d.Control(func(fd uintptr) {
		failed = unix.Cachestat(uint(fd), &unix.CachestatRange{Off: uint64(offset), Len: uint64(length)}, &stat, 0)
	}); err != nil || failed != nil {
		return true
	}
	return 2*int64(stat.Cache)*pageSize >= length
}

func (d descriptor) drop(offset, length int64) {
	d.Control(func(fd uintptr) {
		_ = unix.Fadvise(int(fd), offset, length, unix.FADV_DONTNEED)
	})
}
