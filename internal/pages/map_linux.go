// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pages

import (
	"os"
	"syscall"
)

var pageSize = os.Getpagesize()

// alloc maps n bytes, all pages of it at once. Where there is no memory, or no
// room for another mapping, the heap says so.
func alloc(n int) []byte {
	n = (max(n, 1) + pageSize - 1) / pageSize * pageSize
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
	if err != nil {
		return make([]byte, n)
	}
	return b
}

// release unmaps b. Memory of the heap, which is left to the collector, is no
// mapping that syscall knows.
func release(b []byte) {
	_ = syscall.Munmap(b[:cap(b)])
}
