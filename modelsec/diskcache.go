// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// defaultCacheLimit is the size of a segment cache where the caller names none.
const defaultCacheLimit = 64 << 30

// diskCache keeps stored segments in files that are named by their SHA-256, so
// that the processes of one host fetch each segment once. It needs no locks: a
// file appears under its name by a rename, any number of writers write the
// same bytes, and whoever reads hashes what was read before using it. So it
// may be shared with processes that are not trusted; at worst they waste time.
type diskCache struct {
	root    *os.Root
	limit   int64
	written atomic.Int64 // since the last look at the whole

	evicting sync.Mutex
}

func openDiskCache(dir string, limit int64) (*diskCache, error) {
	if limit <= 0 {
		limit = defaultCacheLimit
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &diskCache{root: root, limit: limit}, nil
}

// segmentName spreads the files over 256 directories.
func segmentName(digest []byte) string {
	h := hex.EncodeToString(digest)
	return h[:2] + "/" + h[2:]
}

// get fills buf with a segment, if there is a file of exactly that size. The
// bytes are not verified.
func (c *diskCache) get(digest, buf []byte) bool {
	// A pipe in place of the file must not make us wait for its writer.
	f, err := c.root.OpenFile(segmentName(digest), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() || info.Size() != int64(len(buf)) {
		return false
	}
	_, err = io.ReadFull(f, buf)
	return err == nil
}

// used tells eviction that a segment was of use.
func (c *diskCache) used(digest []byte) {
	now := time.Now()
	c.root.Chtimes(segmentName(digest), now, now)
}

// remove drops a file that did not hold what its name says.
func (c *diskCache) remove(digest []byte) { c.root.Remove(segmentName(digest)) }

// put stores a verified segment. A cache that cannot be written is no reason
// to fail: the error is for the log.
func (c *diskCache) put(digest, stored []byte) error {
	name := segmentName(digest)
	if info, err := c.root.Lstat(name); err == nil && info.Size() == int64(len(stored)) {
		return nil
	}
	if err := c.root.Mkdir(name[:2], 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	suffix := make([]byte, 8)
	rand.Read(suffix)
	temporary := fmt.Sprintf("%s.%x", name, suffix)
	f, err := c.root.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(stored)
	if err = errors.Join(err, f.Close()); err == nil {
		err = c.root.Rename(temporary, name)
	}
	if err != nil {
		c.root.Remove(temporary)
		return err
	}
	if c.written.Add(int64(len(stored))) > c.limit/8 {
		return c.evict()
	}
	return nil
}

// evict removes the files that were not used for longest until a tenth of the
// limit is free. Several processes may do so at once.
func (c *diskCache) evict() error {
	if !c.evicting.TryLock() {
		return nil
	}
	defer c.evicting.Unlock()
	c.written.Store(0)
	type entry struct {
		name string
		size int64
		used time.Time
	}
	var entries []entry
	var total int64
	err := fs.WalkDir(c.root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // removed by another process, or none of ours
		}
		if info, err := d.Info(); err == nil {
			entries = append(entries, entry{name, info.Size(), info.ModTime()})
			total += info.Size()
		}
		return nil
	})
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.used.Compare(b.used), cmp.Compare(a.name, b.name))
	})
	for _, e := range entries {
		if total <= c.limit-c.limit/10 {
			break
		}
		if c.root.Remove(e.name) == nil {
			total -= e.size
		}
	}
	return err
}
