// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// server is a running registry.
type server struct {
	host string
	root string
	pid  int

	process *exec.Cmd
	stdin   io.Closer
}

// startServer starts the registry on an empty directory below work.
func startServer(ctx context.Context, bin, work string, limit int) (*server, error) {
	root, err := os.MkdirTemp(work, "registry-")
	if err != nil {
		return nil, err
	}
	s := &server{root: root}
	s.process = exec.CommandContext(ctx, filepath.Join(bin, "registry"), "-root", root, "-cap", strconv.Itoa(limit))
	s.process.Stderr = os.Stderr
	if s.stdin, err = s.process.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := s.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.process.Start(); err != nil {
		return nil, err
	}
	s.pid = s.process.Process.Pid
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry did not start: %w", err), s.stop())
	}
	s.host = strings.TrimSpace(line)
	return s, nil
}

// clear empties the registry. It keeps nothing in memory that would notice.
func (s *server) clear() error {
	entries, err := os.ReadDir(s.root)
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(s.root, e.Name())))
	}
	return err
}

// stop ends the process and removes its storage.
func (s *server) stop() error {
	s.stdin.Close()
	s.process.Wait()
	return os.RemoveAll(s.root)
}
