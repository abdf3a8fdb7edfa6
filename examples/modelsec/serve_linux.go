// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
)

type peerKey struct{}

var errPeer = errors.New("the caller is not a process of this user")

// newSocketFront listens on a unix socket. Its directory keeps other users
// out; who came in all the same is asked for his user.
func newSocketFront(dir *settings) (*front, error) {
	path := dir.file("s3.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	f := &front{listener: l, endpoint: "unix:" + path}
	f.connected = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, peerKey{}, sameUser(c))
	}
	f.admit = func(r *http.Request) error {
		if same, _ := r.Context().Value(peerKey{}).(bool); !same {
			return errPeer
		}
		return nil
	}
	if err := dir.writeEnv(f.endpoint); err != nil {
		l.Close()
		return nil, err
	}
	return f, nil
}

// sameUser reports whether a process of this user is at the other end.
func sameUser(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		same = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return err == nil && same
}
