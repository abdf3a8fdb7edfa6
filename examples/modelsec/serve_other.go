// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

// newSocketFront needs a system that says who is at the other end of a socket.
func newSocketFront(*settings) (*front, error) {
	return nil, usagef("without --listen this needs Linux: use --listen 127.0.0.1:0")
}
