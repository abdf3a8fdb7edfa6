// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strings"
	"time"
)

// environment is what the samples depend on.
type environment struct {
	Time       string          `json:"time"`
	Commit     string          `json:"commit"`
	OS         string          `json:"os"`
	Arch       string          `json:"arch"`
	Kernel     string          `json:"kernel"`
	CPU        string          `json:"cpu"`
	Features   []string        `json:"features"` // of the processor, those that matter here
	Cores      int             `json:"cores"`
	MemoryMiB  int64           `json:"memoryMiB"`
	Go         string          `json:"go"`
	Registry   string          `json:"registry"`
	Storage    string          `json:"storage"`
	Load       string          `json:"load"` // when the run began
	Warm       bool            `json:"warm"` // memory was touched before
	Size       string          `json:"size"`
	Rounds     int             `json:"rounds"`
	Contenders []contenderInfo `json:"contenders"`
}

type contenderInfo struct {
	Name    string `json:"name"`
	Note    string `json:"note"`
	Version string `json:"version,omitempty"`
}

func describe(ctx context.Context, o options, list []contender) environment {
	e := environment{
		Time: time.Now().UTC().Format(time.RFC3339), Commit: commit(ctx),
		OS: runtime.GOOS, Arch: runtime.GOARCH, Kernel: readLine("/proc/sys/kernel/osrelease"),
		Cores: runtime.NumCPU(), Go: runtime.Version(), Load: readLine("/proc/loadavg"),
		Registry: "distribution " + moduleVersion(ctx, "github.com/distribution/distribution/v3"),
		Storage:  "disk", Size: o.size.String(), Rounds: o.rounds, Warm: o.warm,
	}
	if strings.HasPrefix(o.work, "/dev/shm") {
		e.Storage = "tmpfs"
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name":
			e.CPU = strings.TrimSpace(value)
		case "flags":
			e.Features = features(strings.Fields(value))
		}
	}
	if b, err := os.ReadFile("/proc/meminfo"); err == nil {
		e.MemoryMiB = meminfo(b, "MemTotal") >> 20
	}
	e.Contenders = describeContenders(list)
	return e
}

func describeContenders(list []contender) (out []contenderInfo) {
	for _, c := range list {
		out = append(out, contenderInfo{c.name, c.note, c.version})
	}
	return out
}

func features(flags []string) (found []string) {
	for _, f := range flags {
		switch f {
		case "sha_ni", "aes", "vaes", "avx2", "avx512f", "avx512bw":
			found = append(found, f)
		}
	}
	return found
}

// commit names what is measured. Uncommitted changes show; results do not
// count as such.
func commit(ctx context.Context) string {
	c := output(ctx, "git", "rev-parse", "--short=12", "HEAD")
	if c == "" {
		return "unknown"
	}
	if output(ctx, "git", "status", "--porcelain", "--", ":/", ":(exclude)results") != "" {
		c += "-dirty"
	}
	return c
}

func readLine(name string) string {
	b, _ := os.ReadFile(name)
	b, _, _ = bytes.Cut(b, []byte("\n"))
	return string(b)
}
