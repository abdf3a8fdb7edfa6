// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// maxPatience bounds how long a version that failed is left alone. It may be
// mended where it is: by a grant, or by a registry that served bad bytes.
const maxPatience = 10 * time.Minute

// follower remembers what became of the last version that was tried.
type follower struct {
	*server
	failed  digest.Digest
	retryAt time.Time
	wait    time.Duration
}

// follow loads the first version, or fails, and takes up others until ctx is
// done.
func (s *server) follow(ctx context.Context, interval time.Duration) error {
	f := &follower{server: s}
	if err := f.update(ctx, interval); err != nil {
		return err
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			// What is served stays as it is; update has logged and counted why.
			_ = f.update(ctx, interval)
		}
	}
}

// update loads what the tag names where that is another version than the one
// that is served.
func (f *follower) update(ctx context.Context, interval time.Duration) error {
	found, err := f.client.Resolve(ctx, f.ref)
	if err != nil {
		return f.keep(ctx, "", err)
	}
	if current := f.current.Load(); current != nil && current.digest == found.Digest {
		return nil
	}
	if found.Digest == f.failed && time.Now().Before(f.retryAt) {
		return nil
	}
	next, err := load(ctx, f.client, f.ref, f.policy)
	if err != nil {
		if found.Digest != f.failed {
			f.failed, f.wait = found.Digest, interval
		}
		f.retryAt = time.Now().Add(f.wait)
		f.wait = min(2*f.wait, maxPatience)
		return f.keep(ctx, found.Digest, err)
	}
	f.failed = ""
	f.current.Store(next)
	f.metrics.loads.WithLabelValues("loaded").Inc()
	f.log.Info("serving", "ref", f.ref, "digest", next.digest, "tensors", len(next.order), "bytes", next.bytes, "took", next.took)
	return nil
}

// keep says why the version that is served stays.
func (f *follower) keep(ctx context.Context, tried digest.Digest, err error) error {
	if ctx.Err() != nil {
		return err
	}
	result := "failed"
	var refused *provenance.PolicyError
	if errors.As(err, &refused) || errors.Is(err, modelsec.ErrDigest) || errors.Is(err, modelsec.ErrFormat) {
		result = "refused"
	}
	f.metrics.loads.WithLabelValues(result).Inc()
	f.log.Error("new version "+result, "ref", f.ref, "digest", tried, "error", err.Error())
	return err
}
