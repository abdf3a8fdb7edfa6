// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
)

// batch is how many segments are hashed together. Two at a time is where
// processors with SHA extensions gain most; where segments are large, memory
// for more streams is worth more.
func (t *content) batch() int {
	if t.index.SegmentSize > index.LargeSegmentSize {
		return 1
	}
	return min(2, t.lanes.Width())
}

// segments verifies stored segments that lie one after the other, keeps them
// where there is a cache, and delivers them. It returns those that it did not
// deliver, and what is wrong with the last of them.
func (f *fetcher) segments(ctx context.Context, layer int, ks []int64, stored []byte) (bad []int64, err error) {
	if len(ks) == 0 {
		return nil, nil
	}
	var parts, contents [2][]byte
	var errs [2]error
	for i, k := range ks {
		_, n := f.index.Geometry(layer).Stored(k)
		parts[i], stored = stored[:n:n], stored[n:]
	}
	if err := f.c.lane(ctx, func() error {
		var sums [2][digest.Size]byte
		if err := f.lanes.Sum(sums[:len(ks)], parts[:len(ks)]); err != nil {
			return err
		}
		for i, k := range ks {
			contents[i], errs[i] = f.segment(layer, k, parts[i], sums[i])
		}
		return nil
	}); err != nil {
		return ks, err
	}
	for i, k := range ks {
		if errs[i] == nil {
			errs[i] = f.deliver(layer, k, contents[i])
		}
		if errs[i] != nil {
			bad, err = append(bad, k), errs[i]
			if !curable(err) {
				return append(bad, ks[i+1:]...), err
			}
		}
	}
	return bad, err
}

// segment judges one stored segment by its digest, and decrypts it in place.
func (f *fetcher) segment(layer int, k int64, stored []byte, sum [digest.Size]byte) ([]byte, error) {
	if !bytes.Equal(sum[:], f.index.Digest(layer, k)) {
		// Before a host is blamed: is it the lanes?
		if err := f.lanes.Check(sum, stored); err != nil {
			return nil, err
		}
		return nil, f.mismatch(layer, k, sum)
	}
	if f.c.cache != nil {
		if err := f.c.cache.put(f.index.Digest(layer, k), stored); err != nil {
			f.c.logger().Debug("segment not cached", "error", err)
		}
	}
	return f.open(layer, k, stored)
}

// open notes a segment whose digest was checked, and decrypts it in place.
func (f *fetcher) open(layer int, k int64, stored []byte) ([]byte, error) {
	if f.note != nil {
		if err := f.note(layer, k, stored); err != nil {
			return nil, err
		}
	}
	return f.content.open(layer, k, stored)
}

// cached delivers the segments of a job that this host has, and returns the
// others. What a file of the cache holds is checked like what a host sends.
func (f *fetcher) cached(ctx context.Context, j job, buf []byte) (left []int64, err error) {
	if f.c.cache == nil {
		return j.wanted, nil
	}
	for i, k := range j.wanted {
		want := f.index.Digest(j.layer, k)
		_, n := f.index.Geometry(j.layer).Stored(k)
		if !f.c.cache.get(want, buf[:n]) {
			left = append(left, k)
			continue
		}
		var content []byte
		err := f.c.lane(ctx, func() (err error) {
			if err := f.checkDigest(j.layer, k, buf[:n]); err != nil {
				return err
			}
			content, err = f.open(j.layer, k, buf[:n])
			return err
		})
		if errors.Is(err, ErrDigest) {
			f.c.cache.remove(want)
			left = append(left, k)
			continue
		}
		if err == nil {
			f.c.cache.used(want)
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
