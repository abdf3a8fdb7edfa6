// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// segment verifies one stored segment on a lane, keeps it where there is a
// cache, and delivers it.
func (f *fetcher) segment(ctx context.Context, layer int, k int64, stored []byte) error {
	var content []byte
	err := f.c.lane(ctx, func() (err error) {
		if err = f.checkDigest(layer, k, stored); err != nil {
			return err
		}
		if f.c.cache != nil {
			if err := f.c.cache.put(f.index.Digest(layer, k), stored); err != nil {
				f.c.logger().Debug("segment not cached", "error", err)
			}
		}
		content, err = f.open(layer, k, stored)
		return err
	})
	if err != nil {
		return err
	}
	return f.deliver(layer, k, content)
}

// cached delivers the segments of a job that this host has, and returns the
// others. What a file of the cache holds is checked like what a host sends.
func (f *fetcher) cached(ctx context.Context, j job, buf []byte) (left []int64, err error) {
	if f.c.cache == nil {
		return j.wanted, nil
	}
	for i, k := range j.wanted {
		digest := f.index.Digest(j.layer, k)
		_, n := f.index.Geometry(j.layer).Stored(k)
		if !f.c.cache.get(digest, buf[:n]) {
			left = append(left, k)
			continue
		}
		var content []byte
		err := f.c.lane(ctx, func() (err error) {
			content, err = f.check(j.layer, k, buf[:n])
			return err
		})
		if errors.Is(err, ErrDigest) {
			f.c.cache.remove(digest)
			left = append(left, k)
			continue
		}
		if err == nil {
			f.c.cache.used(digest)
			err = f.deliver(j.layer, k, content)
		}
		if err != nil {
			return append(left, j.wanted[i:]...), err
		}
	}
	return left, nil
}

// pause waits before a repeated attempt: 0.1 s, doubling up to 5 s, less up to
// a half at random so that hosts of a fleet do not come back together.
func pause(ctx context.Context, attempt int) error {
	if attempt == 0 {
		return ctx.Err()
	}
	d := min(100*time.Millisecond<<attempt, maxFetchBackoff)
	t := time.NewTimer(d - rand.N(d/2))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
