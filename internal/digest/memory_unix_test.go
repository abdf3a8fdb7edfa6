// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux || darwin

package digest_test

import (
	"os"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
)

// TestSumReadsNoByteOutsideMessages puts messages against pages that cannot be
// read: one byte more, in front or behind, is a fault.
func TestSumReadsNoByteOutsideMessages(t *testing.T) {
	page := os.Getpagesize()
	memory, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(memory)
	for _, guard := range [][]byte{memory[:page], memory[2*page:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	data := memory[page : 2*page]
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		for n := 0; n <= 260; n++ {
			first, last := make([][]byte, 16), make([][]byte, 16)
			for i := range first {
				first[i], last[i] = data[:n], data[page-n:]
			}
			compare(t, l, first)
			compare(t, l, last)
			compareBlob(t, l, [][]byte{{1}, first[0], last[0], first[0]}, 1, func(int) bool { return n%2 == 0 })
		}
		for n := 0; n <= page; n += 61 {
			first, last := make([][]byte, 16), make([][]byte, 16)
			for i := range first {
				first[i], last[i] = data[:n], data[page-n:]
			}
			compareBlob(t, l, append(first, last...), 16, func(i int) bool { return false })
		}
	})
}
