// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// warmReserve is what the program that warms leaves to all others meanwhile.
const warmReserve = 3 << 30

// warm has the memory of a virtual machine kept with it until the function that
// it returns is called: see the program of that name. It is another process so
// that what it touches is not counted as memory of those that this one starts.
func warm(ctx context.Context, bin string) (end func(), err error) {
	n := available() - warmReserve
	if n <= 0 {
		return nil, errors.New("how much memory is available is not known, or it is too little to warm any")
	}
	log.Printf("touching %d MiB of memory", n>>20)
	p := exec.CommandContext(ctx, filepath.Join(bin, "warm"), "-bytes", strconv.FormatInt(n, 10))
	stdin, err := p.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := p.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	p.Stderr = &said
	if err := p.Start(); err != nil {
		return nil, err
	}
	end = func() {
		stdin.Close()
		p.Wait()
	}
	if _, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		end()
		return nil, fmt.Errorf("memory was not warmed: %w: %s", err, strings.TrimSpace(said.String()))
	}
	return end, nil
}
