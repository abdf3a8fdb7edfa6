// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Warm keeps the memory of a virtual machine with it, so that transfers are
// measured and not its host. Many hosts give a guest memory when it is first
// touched, at a fifth of the speed or less, and take back every block of 2 MiB
// that is free for a second or two, so that what a file on tmpfs costs depends
// on what was removed when. Warm touches so many bytes once and then keeps
// one page of every block: no block is free as a whole, and nothing is taken.
//
//	warm -bytes N
//
// It prints the MiB that it keeps when all is warm, and ends with its standard
// input.
package main

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	page  = 4 << 10
	block = 2 << 20
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("warm: ")
	n := flag.Int64("bytes", 0, "how much to touch")
	flag.Parse()
	if err := run(*n); err != nil {
		log.Fatal(err)
	}
}

func run(n int64) error {
	restore, err := leavePagesInPlace()
	if err != nil {
		return err
	}
	defer restore()
	memory, kept, err := warm(n)
	if err != nil {
		return err
	}
	fmt.Println(kept * page >> 20)
	io.Copy(io.Discard, os.Stdin)
	return syscall.Munmap(memory)
}

// leavePagesInPlace keeps the kernel from moving pages that are locked, and from
// moving others without need, until restore is called. Large folios of a page
// cache are need enough.
func leavePagesInPlace() (restore func(), err error) {
	before := make(map[string][]byte)
	restore = func() {
		for name, b := range before {
			os.WriteFile(name, b, 0)
		}
	}
	for _, name := range []string{"/proc/sys/vm/compaction_proactiveness", "/proc/sys/vm/compact_unevictable_allowed"} {
		b, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue // Linux before 5.9 has no proactive compaction
		}
		if err == nil {
			before[name] = b
			err = os.WriteFile(name, []byte("0"), 0)
		}
		if err != nil {
			restore()
			return nil, err
		}
	}
	return restore, nil
}

// warm returns the mapping, of which it kept so many pages.
func warm(n int64) (memory []byte, kept int64, err error) {
	memory, err = syscall.Mmap(-1, 0, int(n)&^(page-1), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_NORESERVE)
	if err != nil {
		return nil, 0, err
	}
	if err := syscall.Madvise(memory, syscall.MADV_NOHUGEPAGE); err != nil {
		return nil, 0, err
	}
	for at := 0; at < len(memory); at += page {
		memory[at] = 1
	}
	frames, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, 0, err
	}
	defer frames.Close()
	seen := make(map[uint64]bool)
	entries := make([]byte, 8*(block/page))
	for at := 0; at < len(memory); at += block {
		here := memory[at:min(at+block, len(memory))]
		if _, err := frames.ReadAt(entries[:8*(len(here)/page)], int64(address(here))/page*8); err != nil {
			return nil, 0, err
		}
		for i := 0; i < len(here); i += page {
			// Bits 0 to 54 are the number of the frame, which only root sees.
			frame := binary.NativeEndian.Uint64(entries[i/page*8:]) & (1<<55 - 1)
			if frame == 0 {
				return nil, 0, fmt.Errorf("frames of memory can only be seen as root")
			}
			if b := frame / (block / page); !seen[b] {
				seen[b] = true
				kept++
				continue
			}
			if err := syscall.Madvise(here[i:i+page], syscall.MADV_DONTNEED); err != nil {
				return nil, 0, err
			}
		}
	}
	// What is not there is not fetched for being locked.
	if _, _, errno := unix.Syscall(unix.SYS_MLOCK2, address(memory), uintptr(len(memory)), unix.MLOCK_ONFAULT); errno != 0 {
		return nil, 0, fmt.Errorf("mlock2: %w", errno)
	}
	return memory, kept, nil
}

func address(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
