// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"
)

// routes is the transport of one registry host and of the hosts that it sends
// its clients to. Each kind of target has connections of its own, because a
// connection outlives the check made when it was dialled.
type routes struct {
	registry *url.URL
	trusted  []string // token services named by the caller

	direct  http.RoundTripper // the registry, and where it redirects
	realm   http.RoundTripper // token services elsewhere
	trustee http.RoundTripper // token services named by the caller
	proxied http.RoundTripper // everything, where a proxy resolves names
}

func newRoutes(registry *url.URL, h Host, connections int) *routes {
	r := &routes{registry: registry, trusted: h.TrustedRealms}
	if h.Transport != nil {
		r.direct, r.realm, r.trustee, r.proxied = h.Transport, h.Transport, h.Transport, h.Transport
		return r
	}
	g := new(guard)
	own := hostPort(registry)
	base := dialer(nil)
	r.direct = newTransport(h.TLS, connections, nil, func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == own {
			return dialer(g.note).DialContext(ctx, network, address)
		}
		return dialer(g.redirected).DialContext(ctx, network, address)
	})
	r.realm = newTransport(h.TLS, connections, nil, dialer(g.realm).DialContext)
	r.trustee = newTransport(h.TLS, connections, nil, base.DialContext)
	r.proxied = newTransport(h.TLS, connections, http.ProxyFromEnvironment, base.DialContext)
	return r
}

func dialer(control func(network, address string, _ syscall.RawConn) error) *net.Dialer {
	return &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second, Control: control}
}

// newTransport speaks HTTP/1.1 over several connections: HTTP/2 in Go moves
// half as much over one, for 1.6 times the processor time.
func newTransport(config *tls.Config, connections int, proxy func(*http.Request) (*url.URL, error), dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	if config == nil {
		config = new(tls.Config)
	}
	config = config.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  proxy,
		DialContext:            dial,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    10 * time.Second,
		DisableCompression:     true,
		MaxIdleConnsPerHost:    connections,
		MaxConnsPerHost:        connections,
		IdleConnTimeout:        30 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         bufferSize,
		WriteBufferSize:        headSize,
		Protocols:              protocols,
	}
}

// RoundTrip sends a request over the connections that it may use.
func (r *routes) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.route(req).RoundTrip(req)
	if resp != nil && resp.Request == nil {
		resp.Request = req
	}
	return resp, err
}

func (r *routes) route(req *http.Request) http.RoundTripper {
	if proxy, err := http.ProxyFromEnvironment(req); err == nil && proxy != nil {
		return r.proxied
	}
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	switch {
	case sameOrigin(first.URL, r.registry):
		return r.direct
	case r.trusts(req.URL):
		return r.trustee
	case strings.EqualFold(req.URL.Hostname(), r.registry.Hostname()):
		return r.direct
	}
	return r.realm
}

// trusts reports whether the caller has named the token service.
func (r *routes) trusts(realm *url.URL) bool {
	if realm.Scheme != "https" && realm.Scheme != r.registry.Scheme {
		return false
	}
	return slices.Contains(r.trusted, realm.Host) || slices.Contains(r.trusted, hostPort(realm))
}

// checkRedirect is the http.Client.CheckRedirect for requests to a registry.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d redirects", errRedirect, maxRedirects)
	case first.Method != http.MethodGet && first.Method != http.MethodHead:
		// The body of an upload, or a state change, goes where it was sent.
		return fmt.Errorf("%w: %s request", errRedirect, first.Method)
	case req.URL.Scheme != "https" && req.URL.Scheme != "http", via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return fmt.Errorf("%w: from %s to %.20q", errRedirect, via[len(via)-1].URL.Scheme, req.URL.Scheme)
	}
	// net/http copies headers from the first request at every hop, and keeps
	// Authorization when only the port or the scheme changes. What a caller set
	// for a mirror is as secret as that.
	for _, hop := range append(via[1:len(via):len(via)], req) {
		if !sameOrigin(first.URL, hop.URL) {
			maps.DeleteFunc(req.Header, func(name string, _ []string) bool { return !slices.Contains(crossingHeaders, name) })
		}
	}
	return nil
}

// crossingHeaders may go to another origin.
var crossingHeaders = []string{"Accept", "Accept-Encoding", "Range", "User-Agent"}

var errRedirect = errors.New("redirect refused")

// sameOrigin compares scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && hostPort(a) == hostPort(b)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
		if u.Scheme == "http" {
			port = "80"
		}
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}
