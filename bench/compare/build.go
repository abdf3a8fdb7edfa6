// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// orasVersion is what -install builds.
const orasVersion = "v1.3.3"

// workerWithoutLanes is the worker that hashes with the standard library alone.
const workerWithoutLanes = "worker-nolanes"

// build makes the programs of this module, in a directory that the caller
// removes.
func build(ctx context.Context, install bool) (bin string, err error) {
	if bin, err = os.MkdirTemp("", "modelsec-compare-bin-"); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.RemoveAll(bin)
		}
	}()
	if err := goTool(ctx, "", "build", "-o", bin+string(filepath.Separator), "./registry", "./worker", "./ocicrypt"); err != nil {
		return "", err
	}
	if runtime.GOOS == "linux" {
		if err := goTool(ctx, "", "build", "-o", bin+string(filepath.Separator), "./warm"); err != nil {
			return "", err
		}
	}
	if err := goTool(ctx, "", "build", "-tags", "nolanes", "-o", filepath.Join(bin, workerWithoutLanes), "./worker"); err != nil {
		return "", err
	}
	if _, err := exec.LookPath("oras"); err == nil || !install {
		return bin, nil
	}
	return bin, installORAS(ctx, bin)
}

// installORAS builds the CLI in a module of its own, so that it has exactly
// the dependencies that its authors released it with.
func installORAS(ctx context.Context, bin string) error {
	dir, err := os.MkdirTemp("", "modelsec-compare-oras-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, args := range [][]string{
		{"mod", "init", "oras"},
		{"mod", "edit", "-require=oras.land/oras@" + orasVersion},
		{"build", "-mod=mod", "-o", bin + string(filepath.Separator), "oras.land/oras/cmd/oras"},
	} {
		if err := goTool(ctx, dir, args...); err != nil {
			return err
		}
	}
	return nil
}

func goTool(ctx context.Context, dir string, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir = dir
	// Without a dynamic linker to wait for, as oras and most tools are released.
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// output is what a program says of itself, on one line; empty where it fails.
func output(ctx context.Context, path string, args ...string) string {
	out, err := exec.CommandContext(ctx, path, args...).Output()
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

// versionOf is what a tool says of its version, and the module that it was built
// from where it is a Go program that knows: few tools do that are not built by
// their authors.
func versionOf(ctx context.Context, path string, args ...string) string {
	said := output(ctx, path, args...)
	if info, err := buildinfo.ReadFile(path); err == nil && info.Main.Version != "" {
		said = strings.TrimSpace(fmt.Sprintf("%s, built from %s %s by %s", said, info.Main.Path, info.Main.Version, info.GoVersion))
	}
	return said
}

// moduleVersion is the version that this module requires of another.
func moduleVersion(ctx context.Context, path string) string {
	return output(ctx, "go", "list", "-m", "-f", "{{.Version}}", path)
}
