// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"net/http"
	"strings"
	"sync"
	"time"
)

// observer is a transport that remembers the replies that passed through it.
type observer struct {
	base http.RoundTripper

	mu      sync.Mutex
	replies []reply
}

// maxReplies is far more than doctor causes.
const maxReplies = 1000

type reply struct {
	path   string
	status int
	tls    *tls.ConnectionState
	date   time.Time // by the server's clock; zero where it does not say
	at     time.Time // by ours, half way between request and reply
}

// RoundTrip implements http.RoundTripper.
func (o *observer) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		return resp, err
	}
	r := reply{path: req.URL.Path, status: resp.StatusCode, tls: resp.TLS, at: start.Add(time.Since(start) / 2)}
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		r.date = date
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.replies) < maxReplies {
		o.replies = append(o.replies, r)
	}
	return resp, nil
}

// summary returns the first reply and whether any asked for a login.
func (o *observer) summary() (first reply, challenged, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.replies {
		challenged = challenged || r.status == http.StatusUnauthorized
	}
	if len(o.replies) == 0 {
		return reply{}, false, false
	}
	return o.replies[0], challenged, true
}

// served reports whether a request with part in its path was answered.
func (o *observer) served(part string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.replies {
		if r.status == http.StatusOK && strings.Contains(r.path, part) {
			return true
		}
	}
	return false
}

// skew is by how much the clocks differ. The header has whole seconds, cut
// off, so half a second is added.
func (o *observer) skew() (time.Duration, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range o.replies {
		if !r.date.IsZero() {
			return r.at.Sub(r.date.Add(500 * time.Millisecond)), true
		}
	}
	return 0, false
}
