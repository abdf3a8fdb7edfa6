// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"time"
)

// cappedListener limits every connection that it accepts, each way by itself,
// as object stores and CDNs limit one stream.
type cappedListener struct {
	net.Listener
	rate int64 // bytes per second
}

func (l cappedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cappedConn{Conn: c, in: pace{rate: l.rate}, out: pace{rate: l.rate}}, nil
}

type cappedConn struct {
	net.Conn
	in, out pace // each used by one goroutine at a time, as net/http does
}

// quantum is moved at once: 3 ms at 90 MB/s, which timers can keep.
const quantum = 256 << 10

func (c *cappedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p[:min(len(p), quantum)])
	c.in.spend(n)
	return n, err
}

func (c *cappedConn) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		n, err := c.Conn.Write(p[written:min(len(p), written+quantum)])
		written += n
		if err != nil {
			return written, err
		}
		c.out.spend(n)
	}
	return written, nil
}

// pace keeps an average. Time that was not used is lost, but for the few
// milliseconds that make up for a timer that was late.
type pace struct {
	rate int64
	due  time.Time // when everything so far may have been moved
}

const slack = 20 * time.Millisecond

func (p *pace) spend(n int) {
	now := time.Now()
	if idle := now.Add(-slack); p.due.Before(idle) {
		p.due = idle
	}
	p.due = p.due.Add(time.Duration(int64(n) * int64(time.Second) / p.rate))
	time.Sleep(p.due.Sub(now))
}
