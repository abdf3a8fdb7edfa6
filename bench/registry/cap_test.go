// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"testing"
	"time"
)

func TestCapHoldsForEachConnection(t *testing.T) {
	const rate, size, connections = 20e6, 6e6, 3
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	listener := cappedListener{inner, rate}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				c.Write(make([]byte, size))
				c.Close()
			}()
		}
	}()
	start := time.Now()
	done := make(chan int64)
	for range connections {
		go func() {
			c, err := net.Dial("tcp", inner.Addr().String())
			if err != nil {
				done <- 0
				return
			}
			defer c.Close()
			n, _ := io.Copy(io.Discard, c)
			done <- n
		}()
	}
	for range connections {
		if n := <-done; n != size {
			t.Errorf("got %d bytes, want %d", n, int64(size))
		}
	}
	// 0.3 s each, side by side. Late timers make it longer, never shorter.
	if took := time.Since(start); took < 250*time.Millisecond || took > 3*time.Second {
		t.Errorf("%d connections took %s", connections, took)
	}
}
