// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"log/slog"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// Defaults and bounds of a Client.
const (
	defaultMemory   = 128 << 20
	maxStreams      = 16 // requests in flight for one operation, at most
	cgroupShare     = 4  // at most a quarter of what the container may use
	fetchAttempts   = 5  // tries without progress before an operation fails
	digestAttempts  = 3  // tries for bytes that arrive well and are wrong
	maxFetchBackoff = 5 * time.Second
)

// Client publishes and opens models. The zero value works: Docker
// credentials, all cores, silent. It is safe for concurrent use and must not
// be copied after first use, since all calls share its memory budget.
type Client struct {
	// Registry opens repositories. Nil: a zero *registry.Client.
	Registry registry.Opener

	// Identities open encrypted artifacts. They are tried in order.
	Identities []encrypt.Identity

	// KeyLifetime keeps data keys in locked memory for so long after they were
	// unwrapped, at most 64, so that a version is opened again without asking
	// its key service, also while that is down. Every Open judges the policy,
	// and the expiry of the grant holds; a grant that is revoked meanwhile opens
	// until then. Zero: no key outlives its Model.
	KeyLifetime time.Duration

	// Verifiers verify signatures by identities of an issuer. Keys that a
	// policy names are verified without one. Where a policy names an issuer
	// and none is here, Open fails with ErrConfig.
	Verifiers []provenance.Verifier

	// Bundles are attestations that the caller has, whatever the registry
	// lists; those of other artifacts are ignored.
	Bundles []*provenance.Bundle

	// CosignTags makes attestations count that cosign 2 listed under the tag
	// sha256-HEX.att, as it did by default, for one more request an artifact. They
	// are believed as those that the registry lists are, by their signatures, and
	// like Bundles they do not go along with a Copy. Signatures under the tag
	// sha256-HEX.sig never count: they are not over a statement (docs/TRUST.md §3).
	CosignTags bool

	// GrantDigests are grants to read before those that the registry lists: the
	// digests that Grant returned. They are found behind a flood of others;
	// those of other artifacts are ignored.
	GrantDigests []digest.Digest

	// Floors remembers the highest sequence seen of every model. Nil: the
	// policy's MinSequence and the expiry of releases are the only protection
	// from rollback.
	Floors Floors

	// Workers bounds how many segments are hashed, sealed or opened at a time.
	// If less than or equal to 0, the number of processors is used.
	Workers int

	// MemoryLimit bounds the buffers, indexes and caches of all calls on this
	// Client together, in bytes. If less than or equal to 0, 128 MiB are used,
	// or a quarter of the memory limit of the control group if that is less.
	MemoryLimit int64

	// CacheDir keeps stored segments in a directory that any number of
	// processes may share, keyed by their SHA-256 and hashed again on every
	// read. Of an encrypted artifact it holds ciphertext. Empty: no cache.
	CacheDir string

	// CacheLimit bounds CacheDir in bytes; segments that were not used for
	// longest go first. If less than or equal to 0, 64 GiB.
	CacheLimit int64

	// Now is the clock that expiry is judged by. Nil: time.Now.
	Now func() time.Time

	// Hooks report progress and audit events.
	Hooks Hooks

	// Logger receives details of requests at Debug level. Nil: silent.
	Logger *slog.Logger

	once    sync.Once
	budget  *budget
	lanes   chan struct{}
	current registry.Opener
	cache   *diskCache // nil: none
	keys    keyCache
}

// Floors is local state against rollback: a hint, since whoever can write it
// can lower it. Advance records that sequence was seen for name and returns
// the highest one seen before. Implementations are safe for concurrent use.
type Floors interface {
	Advance(ctx context.Context, name string, sequence uint64) (floor uint64, err error)
}

func (c *Client) init() {
	c.once.Do(func() {
		limit := c.MemoryLimit
		if limit <= 0 {
			limit = defaultMemory
			if g := cgroupLimit(); g > 0 {
				limit = min(limit, g/cgroupShare)
			}
		}
		c.budget = newBudget(limit)
		workers := c.Workers
		if workers <= 0 {
			workers = runtime.GOMAXPROCS(0)
		}
		c.lanes = make(chan struct{}, workers)
		c.current = c.Registry
		if c.current == nil {
			c.current = &registry.Client{}
		}
		c.keys.lifetime = c.KeyLifetime
		if c.CacheDir == "" {
			return
		}
		var err error
		if c.cache, err = openDiskCache(c.CacheDir, c.CacheLimit); err != nil {
			c.logger().Warn("segments are not cached", "error", err)
		}
	})
}

func (c *Client) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c *Client) logger() *slog.Logger {
	if c.Logger != nil {
		return c.Logger
	}
	return slog.New(slog.DiscardHandler)
}

// lane runs f on one of the client's lanes.
func (c *Client) lane(ctx context.Context, f func() error) error {
	select {
	case c.lanes <- struct{}{}:
		defer func() { <-c.lanes }()
		return f()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cgroupLimit is the memory limit of the control group of this process, or 0.
func cgroupLimit() int64 {
	for _, f := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		// Version 1 writes a number near 2^63 where version 2 writes "max".
		if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n < 1<<60 {
			return n
		}
	}
	return 0
}
