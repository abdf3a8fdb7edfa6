// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
)

// Client opens repositories of registries and image layouts on disk. The zero
// value works. A Client is safe for concurrent use and must not be copied, nor
// its fields changed, after its first use; connections, tokens and what was
// learned about a host are shared by everything it opened, so a program wants
// one Client.
//
// Proxies are taken from the environment as net/http does.
type Client struct {
	// Credentials returns the credential for a host, as written in the
	// reference, port included. The zero Credential means anonymous access. It
	// may be called concurrently, and again for the same host when a token has
	// run out. nil: the configuration files of Docker and podman, and the
	// credential helpers (programs) that these name.
	Credentials func(ctx context.Context, host string) (Credential, error)

	// Hosts holds what is special about single hosts, by host as written in
	// the reference, port included. nil: nothing.
	Hosts map[string]Host

	// Connections bounds the open connections to one host. Every reader from
	// Fetch and every BlobWriter holds one until it is closed, and further
	// operations wait, for as long as their contexts let them. Writers leave one
	// to readers, and have one of their own where it is 1: who creates a writer
	// before it fetches what to write never waits for itself. 0: 16.
	Connections int

	mu        sync.Mutex
	endpoints map[string]*endpoint // by scheme://host
	layouts   map[string]*layoutStore
}

// Host describes one registry host.
type Host struct {
	// PlainHTTP speaks HTTP without TLS, also to hosts that are not this
	// machine. There is never a fallback from one to the other. false: HTTPS,
	// except that loopback hosts are spoken to in plain HTTP unless TLS is set.
	PlainHTTP bool

	// TLS configures certificate authorities and client certificates, here and
	// where the host redirects to. It is cloned; at least TLS 1.2 is spoken.
	// nil: the authorities of the system.
	TLS *tls.Config

	// Transport replaces the package's own, for this host and the hosts that
	// it redirects to; TLS and Connections then have no effect, and addresses
	// are not checked when a connection is made. It must not decompress, nor
	// follow redirects. nil: HTTP/1.1, several connections, large buffers.
	Transport http.RoundTripper

	// TrustedRealms lists token services, as host or host:port, to which the
	// credential of this host may be sent although they are in a private
	// network or on loopback under another name. nil: only services under the
	// registry's own host name, and public ones over HTTPS.
	TrustedRealms []string

	// Mirrors are asked before this host, in order. nil: none.
	Mirrors []Mirror

	// Upload is the form in which blobs are sent to this host first. Zero: the
	// form known to suit it.
	Upload UploadForm
}

// Credential is what a registry is shown. Either Username and Password are
// set, or one of the tokens, or nothing.
type Credential struct {
	Username     string
	Password     string
	RefreshToken string // Identity token, exchanged for access tokens.
	AccessToken  string // Sent to the registry as it is.
}

// String hides the secrets.
func (c Credential) String() string {
	if c == (Credential{}) {
		return "anonymous"
	}
	return "credential (hidden)"
}

// GoString hides the secrets.
func (c Credential) GoString() string { return c.String() }

// Open returns the store of a repository: host/path for a registry, oci:DIR
// for an image layout, which is created when first written. Both implement
// [WriteStore]; a store of a registry implements [Mounter], [Putter],
// [ManifestResolver], [ReferrerPusher], [Sourced] and [Answered] too. Nothing is
// sent or read yet.
//
// Writers of one layout must share a Client, which keeps their changes of its
// index apart; writers in several processes may lose each other's tags and
// referrers, never blobs.
func (c *Client) Open(_ context.Context, name string) (Store, error) {
	ref, err := ParseReference(name)
	if err != nil {
		return nil, err
	}
	if ref.Name != name {
		return nil, fmt.Errorf("registry: open %.300q: want a name without tag or digest", name)
	}
	if dir, ok := strings.CutPrefix(name, layoutPrefix); ok {
		return c.layout(name, dir)
	}
	host, path, _ := strings.Cut(name, "/")
	e := c.endpoint(defaultScheme(host, c.Hosts[host]), host)
	mirrors, err := c.mirrors(host, path)
	if err != nil {
		return nil, fmt.Errorf("registry: open %q: %w", name, err)
	}
	return &remote{endpoint: e, base: e.base, repository: path, mirrors: mirrors}, nil
}

func (c *Client) layout(name, dir string) (*layoutStore, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("registry: open %q: %w", name, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	l, ok := c.layouts[dir]
	if !ok {
		l = &layoutStore{name: name, dir: dir}
		if c.layouts == nil {
			c.layouts = make(map[string]*layoutStore)
		}
		c.layouts[dir] = l
	}
	return l, nil
}

// endpoint returns what all repositories at one address share.
func (c *Client) endpoint(scheme, host string) *endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := scheme + "://" + host
	e, ok := c.endpoints[key]
	if !ok {
		connections := c.Connections
		if connections <= 0 {
			connections = defaultConnections
		}
		credentials := c.Credentials
		if credentials == nil {
			credentials = fileCredentials
		}
		e = newEndpoint(scheme, host, c.Hosts[host], connections, credentials)
		if c.endpoints == nil {
			c.endpoints = make(map[string]*endpoint)
		}
		c.endpoints[key] = e
	}
	return e
}
