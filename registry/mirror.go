// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Mirror is another place that has what a registry has: a replica, a
// pull-through cache, the port of a peer-to-peer engine. Its bytes are never
// trusted: blobs are verified by whoever fetches them, manifests by their
// digest. It is not sent the credential of the registry: Client.Credentials is
// asked for one under the mirror's own host, and its TLS, Transport and
// TrustedRealms are those of Client.Hosts under that host.
type Mirror struct {
	// URL is scheme://host[:port][/path]. The path goes before that of the
	// repository; one that begins or ends with the element v2 is instead the
	// address of the API, as in https://example.com/artifactory/docker/v2. The
	// scheme is followed to the letter.
	URL string

	// Resolve lets the mirror also answer for what has no digest to check by:
	// what a tag names, which tags exist, and the listing of referrers. It is
	// asked first, and the registry where it fails or lists nothing. Such a
	// mirror can withhold and replay, as the registry can. A store that has
	// been written asks the registry alone from then on. See [Answered]. False:
	// blobs only.
	Resolve bool

	// Namespace tells the mirror which registry is meant, by the query ns=HOST
	// that containerd also sends.
	Namespace bool

	// Under restricts the mirror to the repository of this path and those
	// below, and is taken off when the mirror is asked. Empty: all.
	Under string

	// Header is sent with every request to the mirror, such as
	// X-Dragonfly-Registry, and never to where it redirects to.
	Header http.Header
}

// Answered is implemented by a [Store] for which mirrors may answer (see
// Mirror.Resolve).
type Answered interface {
	// AnsweredBy names the mirrors that have answered in place of the registry
	// since the store was opened, in the order in which they first did.
	AnsweredBy() []string
}

// answers remembers who has answered.
type answers struct {
	mu    sync.Mutex
	names []string
}

func (a *answers) add(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !slices.Contains(a.names, name) {
		a.names = append(a.names, name)
	}
}

// mirror is one of a store, and the BlobSource that callers see of it.
type mirror struct {
	store   *remote
	name    string
	resolve bool
	failed  atomic.Bool // in a way that asking again does not cure
}

// String names the mirror without its headers.
func (m *mirror) String() string { return m.name }

// Fetch asks the mirror, for blobs only.
func (m *mirror) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	return m.store.Fetch(ctx, d, off, n)
}

// mirrors returns those of a repository.
func (c *Client) mirrors(host, repository string) ([]*mirror, error) {
	var found []*mirror
	for i, m := range c.Hosts[host].Mirrors {
		u, err := parseMirror(m)
		if err != nil {
			return nil, fmt.Errorf("mirror %d: %w", i, err) // the address may hold a secret
		}
		rest, ok := beneath(repository, m.Under)
		if !ok {
			continue
		}
		e := c.endpoint(u.Scheme, u.Host)
		s := &remote{endpoint: e, base: e.base, repository: rest, header: m.Header, attempts: mirrorAttempts}
		path := strings.Trim(u.Path, "/")
		switch {
		case path == "v2":
		case strings.HasPrefix(path, "v2/"):
			s.repository = strings.Trim(strings.TrimPrefix(path, "v2/")+"/"+rest, "/")
		case strings.HasSuffix(path, "/v2"):
			base := *e.base
			base.Path = "/" + path + "/"
			s.base = &base
		default:
			s.repository = strings.Trim(path+"/"+rest, "/")
		}
		if !repositoryPattern.MatchString(s.repository) {
			return nil, fmt.Errorf("mirror %d: path %.100q is not that of a repository", i, s.repository)
		}
		if m.Namespace {
			s.namespace = host
		}
		found = append(found, &mirror{store: s, name: strings.Trim("mirror "+u.Host+"/"+path, "/"), resolve: m.Resolve})
	}
	return found, nil
}

// beneath takes under off a repository that is there or below.
func beneath(repository, under string) (rest string, ok bool) {
	under = strings.Trim(under, "/")
	if under == "" {
		return repository, true
	}
	rest, ok = strings.CutPrefix(repository+"/", under+"/")
	return strings.TrimSuffix(rest, "/"), ok
}

func parseMirror(m Mirror) (*url.URL, error) {
	u, err := url.Parse(m.URL)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Opaque != "":
		return nil, errors.New("want https://host or http://host, and perhaps a path")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("credentials, query and fragment do not belong here")
	}
	return u, checkHost(u.Host)
}

// Sources lists the mirrors of the repository.
func (r *remote) Sources() []BlobSource {
	sources := make([]BlobSource, len(r.mirrors))
	for i, m := range r.mirrors {
		sources[i] = m
	}
	return sources
}

func (r *remote) AnsweredBy() []string {
	r.asked.mu.Lock()
	defer r.asked.mu.Unlock()
	return slices.Clone(r.asked.names)
}

// ask has f put a question to the mirrors that may answer it, then to the
// registry, until one does.
func (r *remote) ask(ctx context.Context, f func(*remote) error) error {
	if r.askMirrors(ctx, f) {
		return nil
	}
	return f(r)
}

// askMirrors reports whether one has answered.
func (r *remote) askMirrors(ctx context.Context, f func(*remote) error) bool {
	for _, m := range r.mirrors {
		if !m.resolve || m.failed.Load() || r.written.Load() || ctx.Err() != nil {
			continue
		}
		err := f(m.store)
		if err == nil {
			r.asked.add(m.name)
			return true
		}
		// A cache need not have everything. One that does not work, or lies,
		// costs time at every question.
		if !errors.Is(err, ErrNotFound) && ctx.Err() == nil {
			m.failed.Store(true)
		}
	}
	return false
}

// list is ask for what comes in pages. The listing of a mirror is read to its
// end before any of it counts, so that two listings are never mixed.
func list[T any](ctx context.Context, r *remote, pages func(*remote) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var found []T
		answered := r.askMirrors(ctx, func(s *remote) error {
			found = nil
			for item, err := range pages(s) {
				if err != nil {
					return err
				}
				found = append(found, item)
			}
			if len(found) == 0 {
				return ErrNotFound
			}
			return nil
		})
		if !answered {
			pages(r)(yield)
			return
		}
		for _, item := range found {
			if !yield(item, nil) {
				return
			}
		}
	}
}
