// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelsec/modelsec-go/examples/internal/podenv"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

const (
	scheme = "modelsec://"

	// markComplete is the file that Pull leaves in a mount point it has filled.
	markComplete = ".modelsec-complete"

	progressInterval = 10 * time.Second
)

// pair is one model and where it goes.
type pair struct{ ref, dir string }

func parsePairs(args []string) ([]pair, error) {
	if len(args) == 0 || len(args)%2 != 0 {
		return nil, fmt.Errorf("%w: %d arguments, want pairs of a URI and a directory", podenv.ErrConfig, len(args))
	}
	var pairs []pair
	for a := range slices.Chunk(args, 2) {
		ref, ok := strings.CutPrefix(a[0], scheme)
		if !ok {
			return nil, fmt.Errorf("%w: URI %q does not begin with %s", podenv.ErrConfig, a[0], scheme)
		}
		parsed, err := registry.ParseReference(ref)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", podenv.ErrConfig, err)
		}
		if parsed.Tag == "" && parsed.Digest == "" {
			return nil, fmt.Errorf("%w: %q names no version; add :TAG or @DIGEST", podenv.ErrConfig, a[0])
		}
		if !filepath.IsAbs(a[1]) {
			return nil, fmt.Errorf("%w: directory %q is not absolute", podenv.ErrConfig, a[1])
		}
		pairs = append(pairs, pair{ref, filepath.Clean(a[1])})
	}
	return pairs, nil
}

// initialize puts every model in place, or says why not.
func initialize(ctx context.Context, args []string, env func(string) string, log *slog.Logger) error {
	pairs, err := parsePairs(args)
	if err != nil {
		return err
	}
	policy, err := podenv.Policy(env)
	if err != nil {
		return err
	}
	identities, err := podenv.Identities(ctx, env)
	if err != nil {
		return err
	}
	client := &modelsec.Client{
		Identities: identities,
		CacheDir:   env("MODELSEC_CACHE"),
		Logger:     log,
		Hooks:      modelsec.Hooks{Progress: (&progress{log: log}).update},
	}
	for _, p := range pairs {
		if err := clearCompleted(p.dir); err != nil {
			return err
		}
		report, err := client.Pull(ctx, p.ref, p.dir, policy, nil)
		if err != nil {
			return err
		}
		log.Info("model in place", "ref", p.ref, "digest", report.Manifest, "dir", p.dir, "report", report)
	}
	return nil
}

// clearCompleted empties a directory that an earlier run has filled. One that
// bears no mark of ours is left alone, and Pull will not write into it.
func clearCompleted(dir string) error {
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Lstat(markComplete); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		// The mark last: a run that is killed here goes on in the next.
		if e.Name() == markComplete || e.Name() == "lost+found" {
			continue
		}
		if err := root.RemoveAll(e.Name()); err != nil {
			return err
		}
	}
	return root.Remove(markComplete)
}

// progress logs where a long pull stands.
type progress struct {
	log  *slog.Logger
	mu   sync.Mutex
	last time.Time
}

func (p *progress) update(now modelsec.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !now.Final && time.Since(p.last) < progressInterval {
		return
	}
	p.last = time.Now()
	p.log.Info("progress", "op", now.Op, "ref", now.Ref, "file", now.File, "done", now.Done, "total", now.Total)
}
