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
)

// segment judges one stored segment by its digest, and decrypts it into plain.
func (f *fetcher) segment(layer int, k int64, stored []byte, sum [digest.Size]byte, plain []byte) ([]byte, error) {
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
	return f.decrypt(layer, k, stored, plain)
}

// decrypt notes a segment whose digest was checked, and decrypts it into plain.
func (f *fetcher) decrypt(layer int, k int64, stored, plain []byte) ([]byte, error) {
	if f.note != nil {
		if err := f.note(layer, k, stored); err != nil {
			return nil, err
		}
	}
	return f.content.decrypt(layer, k, stored, plain)
}

// cached delivers the segments of a job that this host has, and returns the
// others. What a file of the cache holds is checked like what a host sends.
func (f *fetcher) cached(ctx context.Context, j job) (left []int64, err error) {
	if f.c.cache == nil {
		return j.wanted, nil
	}
	buf, err := f.buffer(ctx)
	if err != nil {
		return j.wanted, err
	}
	defer f.discard(buf)
	plain := f.plain()
	defer f.pool.Put(plain)
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
			content, err = f.decrypt(j.layer, k, buf[:n], plain)
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
