// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pages_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/internal/pages"
)

const size = 1<<20 + 28

func TestGetReturnsWhatCameBackLast(t *testing.T) {
	var p pages.Pool
	defer p.Close()
	a, b := p.Get(size), p.Get(size)
	if &a[0] == &b[0] {
		t.Fatal("the same memory was handed out twice")
	}
	p.Put(a)
	p.Put(b[:0])
	if got := p.Get(size - 1000); &got[0] != &b[0] || len(got) != size-1000 {
		t.Errorf("got %d bytes that are not those of the last one", len(got))
	}
	if got := p.Get(size); &got[0] != &a[0] {
		t.Error("the other one was not handed out")
	}
}

func TestGetNeverReturnsLessThanAskedFor(t *testing.T) {
	var p pages.Pool
	defer p.Close()
	p.Put(p.Get(4096))
	for _, n := range []int{0, 1, 4096, 4097, size} {
		b := p.Get(n)
		if len(b) != n {
			t.Fatalf("asked for %d bytes, got %d", n, len(b))
		}
		for i := range b {
			b[i] = 0xa5
		}
		p.Put(b)
	}
}

// TestCloseLeavesWhatIsInUse: a buffer that somebody still holds when the pool is
// closed can be read until it is put back.
func TestCloseLeavesWhatIsInUse(t *testing.T) {
	var p pages.Pool
	held, idle := p.Get(size), p.Get(size)
	copy(held, "held")
	p.Put(idle)
	p.Close()
	if !bytes.HasPrefix(held, []byte("held")) {
		t.Error("memory in use changed when the pool was closed")
	}
	p.Put(held)
	if b := p.Get(size); len(b) != size {
		t.Error("a closed pool gives no memory")
	}
}

func TestPoolIsSafeForConcurrentUse(t *testing.T) {
	var p pages.Pool
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 200 {
				b := p.Get(8192)
				b[0], b[8191] = byte(i), byte(i)
				runtime.Gosched()
				if b[0] != byte(i) || b[8191] != byte(i) {
					t.Error("two holders of one buffer")
				}
				p.Put(b)
			}
		})
	}
	group.Wait()
	p.Close()
}
