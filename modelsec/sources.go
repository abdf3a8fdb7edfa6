// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/modelsec/modelsec-go/registry"
)

// sourceFailures is how often in a row a source other than the origin may fail
// before it is left alone.
const sourceFailures = 3

// source is one place that serves the layers of an artifact. None is trusted:
// every segment is verified, whoever sent it. The origin comes last and is
// never dropped, since there is nobody else to ask.
type source struct {
	registry.BlobSource
	origin bool

	// Under the lock of sources.
	probing  bool // a first range is under way
	ranges   bool // has honoured a range
	ignored  bool // has ignored a range
	failures int  // in a row
	dropped  bool
}

// sources are the places to ask, in order, and what was learned about them. It
// is shared by all fetches of a model.
type sources struct {
	mu       sync.Mutex
	all      []*source
	notes    []string
	fetchers map[*fetcher]bool // under way: what one learns, the others wait for
}

// newSources lists where the layers in store can be had.
func newSources(store registry.Store, host string) *sources {
	s := &sources{}
	if m, ok := store.(registry.Sourced); ok {
		for _, b := range m.Sources() {
			s.all = append(s.all, &source{BlobSource: b})
		}
	}
	s.all = append(s.all, &source{BlobSource: origin{store, host}, origin: true})
	return s
}

// origin makes a store the last of its sources.
type origin struct {
	registry.Store
	host string
}

func (o origin) String() string { return o.host }

// enter makes a fetch one of those that are woken when something was learned.
func (s *sources) enter(f *fetcher) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetchers == nil {
		s.fetchers = make(map[*fetcher]bool)
	}
	s.fetchers[f] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.fetchers, f)
	}
}

// wake lets all fetches look at their queues again. It is called without the
// lock, which fetches take under theirs.
func (s *sources) wake() {
	s.mu.Lock()
	fetchers := slices.Collect(maps.Keys(s.fetchers))
	s.mu.Unlock()
	for _, f := range fetchers {
		f.wake()
	}
}

// pick returns the first source that may be asked now. Until a first range of
// a source was answered as a range, further ranges to it wait: each could be
// answered with the whole layer.
func (s *sources) pick(ranged bool) (src *source, whole, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, src := range s.all {
		if src.dropped {
			continue
		}
		if src.probing {
			return nil, false, false
		}
		src.probing = ranged && !src.ranges && !src.ignored
		return src, ranged && src.ignored, true
	}
	panic("modelsec: the origin was dropped")
}

// honoured notes that a range was answered with a range.
func (s *sources) honoured(src *source) {
	s.mu.Lock()
	news := src.probing
	src.ranges, src.probing = true, false
	s.mu.Unlock()
	if news {
		s.wake()
	}
}

// judge learns from how a request ended, and reports whether another source,
// or the same in another way, can be asked at once, and whether others wait for
// the news.
func (s *sources) judge(src *source, ranged bool, err error) (again, news bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if news = ranged && src.probing; news {
		src.probing = false
	}
	return s.learn(src, ranged, err), news
}

func (s *sources) learn(src *source, ranged bool, err error) (again bool) {
	switch {
	case err == nil:
		src.failures = 0
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
	case errors.Is(err, registry.ErrRangeIgnored) && (ranged || !src.ignored):
		if !src.ignored {
			src.ignored = true
			s.note("%s ignores ranges: layers are read whole", src)
		}
		return true
	case src.origin:
	case errors.Is(err, ErrDigest):
		s.drop(src, err)
		return true
	default:
		// A cache need not have everything; one that never has anything only
		// costs time.
		src.failures++
		if src.failures >= sourceFailures || !curable(err) && !errors.Is(err, registry.ErrNotFound) {
			s.drop(src, err)
		}
		return true
	}
	return false
}

func (s *sources) drop(src *source, err error) {
	if !src.dropped {
		src.dropped = true
		s.note("%s is not asked any more: %v", src, err)
	}
}

func (s *sources) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// report returns what was noticed.
func (s *sources) report() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}
