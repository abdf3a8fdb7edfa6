// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"sync"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
)

// maxKeptKeys bounds what a keyCache holds: a page of locked memory for each.
const maxKeptKeys = 64

// keyCache keeps data keys for a while after they were unwrapped. Each lies in
// locked memory of its own and is wiped when its time is over. It is safe for
// concurrent use.
type keyCache struct {
	lifetime time.Duration // 0: nothing is kept

	mu   sync.Mutex
	kept map[encrypt.Binding]*keptKey
}

type keptKey struct {
	key   *encrypt.Key
	entry encrypt.Stanza // that held it
	since time.Time
	end   *time.Timer
}

// get returns a copy of the key for b and the entry that held it, or nil. The
// expiry of the entry holds here as it did there.
func (c *keyCache) get(b encrypt.Binding, now time.Time) (*encrypt.Key, encrypt.Stanza) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.kept[b]
	if k == nil {
		return nil, encrypt.Stanza{}
	}
	if !k.entry.NotAfter.IsZero() && now.Unix() > k.entry.NotAfter.Unix() {
		c.drop(b, k)
		return nil, encrypt.Stanza{}
	}
	key, err := k.key.Clone()
	if err != nil {
		return nil, encrypt.Stanza{}
	}
	return key, k.entry
}

// put keeps a copy of a key. Where there is no room the oldest goes.
func (c *keyCache) put(b encrypt.Binding, key *encrypt.Key, entry encrypt.Stanza) {
	if c.lifetime <= 0 {
		return
	}
	mine, err := key.Clone()
	if err != nil {
		return
	}
	k := &keptKey{key: mine, entry: entry, since: time.Now()}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.kept[b]; old != nil {
		c.drop(b, old)
	}
	for len(c.kept) >= maxKeptKeys {
		c.dropOldest()
	}
	if c.kept == nil {
		c.kept = make(map[encrypt.Binding]*keptKey)
	}
	c.kept[b] = k
	k.end = time.AfterFunc(c.lifetime, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.drop(b, k)
	})
}

// drop wipes a key, once. c.mu is held.
func (c *keyCache) drop(b encrypt.Binding, k *keptKey) {
	k.end.Stop()
	k.key.Close()
	if c.kept[b] == k {
		delete(c.kept, b)
	}
}

func (c *keyCache) dropOldest() {
	var oldest *keptKey
	var at encrypt.Binding
	for b, k := range c.kept {
		if oldest == nil || k.since.Before(oldest.since) {
			oldest, at = k, b
		}
	}
	c.drop(at, oldest)
}
