// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// endpoint is one registry host: its address, its connections, and what was
// learned about it.
type endpoint struct {
	host string // as in the reference
	base *url.URL
	auth *authorizer

	profile *profile // of uploads

	answered atomic.Bool // a request, since the start of the program

	// slots has room for as many requests as there are connections. Whoever
	// waits for a connection must not hold a token meanwhile, which may live for
	// seconds, nor be taken for stalled. nil: the caller's transport bounds.
	slots chan struct{}

	// writers has room for one less, but for one. Who writes what it reads here
	// holds two connections; as long as the writer comes first, and one
	// connection is for readers, nobody waits for who waits for him.
	writers chan struct{}

	listings listings
}

func defaultScheme(host string, h Host) string {
	if h.PlainHTTP || h.TLS == nil && isLoopback(host) {
		return "http"
	}
	return "https"
}

func newEndpoint(scheme, host string, h Host, connections int, credentials func(context.Context, string) (Credential, error)) *endpoint {
	base := &url.URL{Scheme: scheme, Host: host, Path: "/v2/"}
	if host == "docker.io" {
		// The one registry whose name is not its address.
		base.Host = "registry-1.docker.io"
	}
	// One connection cannot read and write: a writer then has another.
	routes := newRoutes(base, h, max(connections, 2))
	e := &endpoint{host: host, base: base, auth: newAuthorizer(routes, host, credentials), profile: profileOf(host, h.Upload)}
	if h.Transport == nil {
		e.slots = make(chan struct{}, connections)
		e.writers = make(chan struct{}, max(connections-1, 1))
	}
	return e
}

func isLoopback(host string) bool {
	name, _, _ := cutPort(host)
	if name == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(strings.Trim(name, "[]"))
	return err == nil && a.IsLoopback()
}

// call is one operation over HTTP.
type call struct {
	method   string
	url      *url.URL
	header   http.Header
	body     []byte            // sent anew at every attempt
	content  *io.SectionReader // or this
	scopes   []string          // access asked for
	attempts int               // at most, when failures pass with time; 0: maxAttempts
	patience time.Duration     // for the head of the reply; 0: stallTimeout
	held     bool              // the caller has a slot
}

// do sends c until it gets a reply that time will not change. The reply may
// have any status. Its body must be closed, and stops when ctx is done or when
// it stalls.
func (e *endpoint) do(ctx context.Context, c call) (*http.Response, error) {
	attempts := c.attempts
	if attempts == 0 {
		attempts = maxAttempts
	}
	for attempt := 1; ; attempt++ {
		resp, err := e.attempt(ctx, c)
		if err == nil {
			e.answered.Store(true)
		} else if errors.Is(err, syscall.ECONNREFUSED) && !e.answered.Load() {
			// Not a restart, but an address where there never was anybody.
			attempts = min(attempts, refusedAttempts)
		}
		last := attempt >= attempts || ctx.Err() != nil
		switch {
		case err != nil && (last || !temporary(err) && !temporaryStatus(statusOf(err))):
			return nil, err
		case err == nil && (last || !temporaryStatus(resp.StatusCode) && !expired(e.base, resp)):
			return resp, nil
		}
		least := time.Duration(0)
		if err == nil {
			least = retryAfter(resp.Header.Get("Retry-After"))
			resp.Body.Close()
		}
		if err := backOff(ctx, attempt, least); err != nil {
			return nil, err
		}
	}
}

// backOff waits after a failed attempt, the first being 1.
func backOff(ctx context.Context, attempt int, least time.Duration) error {
	wait := min(minBackoff<<(attempt-1), maxBackoff)
	timer := time.NewTimer(max(wait/2+rand.N(wait/2), least))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (e *endpoint) attempt(ctx context.Context, c call) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var body io.Reader
	if c.body != nil {
		body = bytes.NewReader(c.body)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, c.url.String(), body)
	if err != nil {
		cancel(nil)
		return nil, errors.New("request has no usable address")
	}
	if c.header != nil {
		req.Header = c.header.Clone()
	}
	if c.patience == 0 {
		c.patience = stallTimeout
	}
	release := func() {}
	if !c.held {
		if release, err = e.slot(ctx); err != nil {
			cancel(nil)
			return nil, err
		}
	}
	patience := newPatience(c.patience, cancel)
	if c.content != nil {
		size := c.content.Size()
		req.ContentLength = size
		req.GetBody = func() (io.ReadCloser, error) {
			if size == 0 {
				return http.NoBody, nil
			}
			return &sentBody{io.NewSectionReader(c.content, 0, size), patience, size}, nil
		}
		req.Body, _ = req.GetBody()
		if size >= expectFrom {
			// A refusal then comes before the content has been sent.
			req.Header.Set("Expect", "100-continue")
		}
	}
	resp, err := e.auth.do(req, c.scopes)
	patience.end()
	if err != nil {
		err = plainError(ctx, err)
		cancel(nil)
		release()
		return nil, err
	}
	resp.Body = &watchedBody{ctx: ctx, cancel: cancel, release: release, body: resp.Body, left: stallTimeout}
	return resp, nil
}

// expired reports whether resp is the refusal of a host that the registry
// redirected to: the address it gave out was good for a time only.
func expired(base *url.URL, resp *http.Response) bool {
	return resp.StatusCode == http.StatusForbidden && resp.Request != nil && !sameOrigin(base, resp.Request.URL)
}

func retryAfter(value string) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if t, err := http.ParseTime(value); err == nil {
		wait = time.Until(t)
	}
	return min(wait, maxRetryAfter)
}
