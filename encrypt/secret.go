// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"fmt"
	"io/fs"
	"runtime"
	"sync"
)

// A secret is key material in a page of its own, which close wipes. It is safe
// for concurrent use.
type secret struct {
	mu      sync.RWMutex
	page    *page // nil after close
	cleanup runtime.Cleanup
}

// newSecret copies b. The caller wipes b.
func newSecret(b []byte) *secret {
	s := &secret{page: newPage(len(b))}
	copy(s.page.bytes, b)
	// A forgotten secret must not keep its page locked for ever.
	s.cleanup = runtime.AddCleanup(s, (*page).free, s.page)
	return s
}

// use lends the bytes to f.
func (s *secret) use(f func(b []byte) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock() // also keeps s from its cleanup while f runs
	if s.page == nil {
		return fmt.Errorf("encrypt: use of a closed key: %w", fs.ErrClosed)
	}
	var err error
	guard(func() { err = f(s.page.bytes) })
	return err
}

func (s *secret) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.page != nil {
		s.cleanup.Stop()
		s.page.free()
		s.page = nil
	}
}
