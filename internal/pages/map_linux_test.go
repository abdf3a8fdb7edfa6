// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/pages"
)

func TestBuffersAreNotOfTheHeap(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var p pages.Pool
	defer p.Close()
	for range 16 {
		defer p.Put(p.Get(size))
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > size {
		t.Errorf("%d bytes of the heap were taken for 16 buffers", grown)
	}
}

// TestCloseGivesMemoryBack counts the pages of this process: idle buffers are
// gone with Close, one in use when it comes back.
func TestCloseGivesMemoryBack(t *testing.T) {
	before := mapped(t)
	var p pages.Pool
	var held [][]byte
	for range 64 {
		held = append(held, p.Get(size))
	}
	if got := mapped(t) - before; got < 64*size {
		t.Fatalf("64 buffers take %d bytes", got)
	}
	last := held[0]
	for _, b := range held[1:] {
		p.Put(b)
	}
	p.Close()
	if got := mapped(t) - before; got > 8*size {
		t.Errorf("%d bytes are left of 64 buffers, one of them in use", got)
	}
	p.Put(last)
	if got := mapped(t) - before; got > 7*size {
		t.Errorf("%d bytes are left", got)
	}
}

// mapped is the size of this process in bytes.
func mapped(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), " ")
	n, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}
