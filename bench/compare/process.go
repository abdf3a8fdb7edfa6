// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// longest is how long one process may take.
const longest = 20 * time.Minute

// cost is what a process took.
type cost struct {
	wall, cpu time.Duration // cpu is user and system time
	rss       int64         // most bytes resident
}

// execute runs commands one after the other: times add up, of memory the most
// counts. Tools see an empty home and nothing of this machine's configuration.
func execute(ctx context.Context, home string, commands []command) (total cost, err error) {
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	for _, c := range commands {
		var out bytes.Buffer
		p := exec.CommandContext(ctx, c.path, c.args...)
		p.Dir, p.Stdout, p.Stderr = c.dir, &out, &out
		if p.Dir == "" {
			p.Dir = home
		}
		p.Env = append([]string{"HOME=" + home, "DOCKER_CONFIG=" + home, "TMPDIR=" + home, "PATH=/usr/bin:/bin"}, c.env...)
		shrink()
		start := time.Now()
		if err := p.Run(); err != nil {
			return total, fmt.Errorf("%s %s: %w\n%s", filepath.Base(c.path), strings.Join(c.args, " "), err, last(out.Bytes(), 2000))
		}
		total.wall += time.Since(start)
		total.cpu += p.ProcessState.UserTime() + p.ProcessState.SystemTime()
		total.rss = max(total.rss, maxRSS(p.ProcessState))
	}
	return total, nil
}

func last(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
