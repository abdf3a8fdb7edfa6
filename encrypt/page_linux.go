// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"os"
	"syscall"
)

// madvDontDump is MADV_DONTDUMP, which package syscall lacks.
const madvDontDump = 16

// A page, or several where it is long, holds a secret outside the Go heap: the collector neither copies nor
// forgets it, core dumps leave it out and it is not swapped. The last two are
// best effort, since a container may allow no locked memory at all.
type page struct {
	bytes  []byte
	mapped []byte // nil where the mapping failed and bytes are ordinary memory
}

func newPage(n int) *page {
	size := (n + os.Getpagesize() - 1) / os.Getpagesize() * os.Getpagesize()
	m, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return &page{bytes: make([]byte, n)}
	}
	_ = syscall.Mlock(m)
	_ = syscall.Madvise(m, madvDontDump)
	return &page{bytes: m[:n:n], mapped: m}
}

// free wipes the page and returns it. Nobody may use bytes afterwards.
func (p *page) free() {
	clear(p.bytes)
	p.bytes = nil
	if p.mapped != nil {
		if err := syscall.Munmap(p.mapped); err != nil { // unlocks too
			panic("encrypt: munmap: " + err.Error())
		}
		p.mapped = nil
	}
}
