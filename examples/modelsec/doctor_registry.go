// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

const (
	// Grants and releases expire by this machine's clock: what tokens tolerate
	// is fine, and an hour (a wrong time zone) is not.
	skewWarn = 30 * time.Second
	skewFail = 5 * time.Minute

	maxManifest = 4 << 20
)

// remote checks the place that the reference names. Two clients look: one just
// like that of the other verbs, and one that lets its replies be seen, which
// has another transport.
func (x *examination) remote(ctx context.Context, write bool) error {
	client, err := x.t.registryClient(x.ref)
	if err != nil {
		return err
	}
	store, err := client.Open(ctx, x.ref.Name)
	if err != nil {
		return err
	}
	watched, seen := store, (*observer)(nil)
	if h := host(x.ref); h != "" {
		if watched, seen, err = x.observe(ctx); err != nil {
			return err
		}
		x.name(ctx, h)
	}
	found, err := x.resolve(ctx, watched)
	if seen != nil && !x.reached(seen, err) {
		return nil // everything else would fail with it
	}
	if x.version(found, err) {
		x.ranges(ctx, store, found)
		x.referrers(ctx, watched, seen, found)
	}
	x.deletion(ctx, store, write)
	if seen != nil {
		x.clock(seen)
	}
	return nil
}

func (x *examination) observe(ctx context.Context) (registry.Store, *observer, error) {
	config, err := x.t.tlsConfig()
	if err != nil {
		return nil, nil, err
	}
	base := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DisableCompression: true,
		TLSHandshakeTimeout: 10 * time.Second, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	seen := &observer{base: base}
	client := &registry.Client{Hosts: map[string]registry.Host{host(x.ref): {PlainHTTP: x.t.plainHTTP, TLS: config, Transport: seen}}}
	store, err := client.Open(ctx, x.ref.Name)
	return store, seen, err
}

// name looks the host up.
func (x *examination) name(ctx context.Context, h string) {
	name := h
	if n, _, err := net.SplitHostPort(h); err == nil {
		name = n
	}
	if net.ParseIP(strings.Trim(name, "[]")) != nil {
		return
	}
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	if err != nil {
		// Behind a proxy it is the proxy that must know the name.
		x.note("dns", checkWarn, "check the host name; behind a proxy that resolves names this is as it should be", "%v", err)
		return
	}
	x.note("dns", checkOK, "", "%s is %s", name, strings.Join(addresses, ", "))
}

// resolve asks for what the reference names, or where it names no version for
// the first tag, so that there is a reply to learn from.
func (x *examination) resolve(ctx context.Context, store registry.Store) (ocispec.Descriptor, error) {
	target := x.ref.Digest.String()
	if target == "" {
		target = x.ref.Tag
	}
	if target != "" {
		return store.Resolve(ctx, target)
	}
	for _, err := range store.Tags(ctx) {
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		break
	}
	return ocispec.Descriptor{}, nil
}

// reached tells the line from the login. It returns false where there is no
// use in going on.
func (x *examination) reached(seen *observer, err error) bool {
	first, challenged, ok := seen.summary()
	if !ok {
		if err == nil {
			err = errors.New("no reply")
		}
		x.failed("connection", err)
		return false
	}
	line := "plain HTTP, which anybody on the way can read and change"
	if first.tls != nil {
		line = tls.VersionName(first.tls.Version)
		if certs := first.tls.PeerCertificates; len(certs) > 0 {
			line += ", certificate good until " + certs[0].NotAfter.UTC().Format(time.DateOnly)
		}
	}
	x.note("connection", checkOK, "", "%s", line)
	e := registryError(err)
	denied := errors.Is(err, registry.ErrUnauthorized) || e != nil && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden)
	switch {
	case denied:
		x.failed("login", err)
		return false
	case challenged:
		x.note("login", checkOK, "", "credential or token accepted")
	default:
		x.note("login", checkOK, "", "not asked for")
	}
	return true
}

// version notes whether the reference names something.
func (x *examination) version(d ocispec.Descriptor, err error) bool {
	named := x.ref.Tag != "" || x.ref.Digest != ""
	switch {
	case !named && errors.Is(err, registry.ErrNotFound):
		x.note("resolve", checkUnknown, "the first push makes it", "the repository is not there yet")
		return false
	case err != nil:
		x.failed("resolve", err)
		return false
	case !named:
		x.note("resolve", checkUnknown, "add a :tag or an @sha256: digest to look at a model", "the reference names no version")
		return false
	}
	x.note("resolve", checkOK, "", "%s", d.Digest)
	return true
}

// ranges asks for one byte in the middle of the largest layer.
func (x *examination) ranges(ctx context.Context, store registry.Store, d ocispec.Descriptor) {
	var m ocispec.Manifest
	text, err := fetchAll(ctx, store, d)
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		x.failed("ranges", err)
		return
	}
	var largest ocispec.Descriptor
	for _, l := range m.Layers {
		if l.Size > largest.Size {
			largest = l
		}
	}
	if largest.Size < 2 {
		x.note("ranges", checkUnknown, "", "no layer is large enough to ask for a part of it")
		return
	}
	body, err := store.Fetch(ctx, largest, largest.Size/2, 1)
	if err == nil {
		_, err = io.ReadAll(body)
		err = errors.Join(err, body.Close())
	}
	switch {
	case errors.Is(err, registry.ErrRangeIgnored):
		x.note("ranges", checkWarn, "turn range requests on at the registry, or at the proxy before it", "not honoured: pull reads every layer over one connection, and again from its beginning after a break")
	case err != nil:
		x.failed("ranges", err)
	default:
		x.note("ranges", checkOK, "", "honoured")
	}
}

// fetchAll reads a manifest.
func fetchAll(ctx context.Context, store registry.Store, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, fmt.Errorf("manifest of %d bytes, limit %d", d.Size, maxManifest)
	}
	body, err := store.Fetch(ctx, d, 0, d.Size)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// referrers finds out how the registry lists attestations and grants.
func (x *examination) referrers(ctx context.Context, store registry.Store, seen *observer, d ocispec.Descriptor) {
	n := 0
	for _, err := range store.Referrers(ctx, d, "") {
		if err != nil {
			x.failed("referrers", err)
			return
		}
		n++
	}
	switch {
	case seen == nil:
		x.note("referrers", checkOK, "", "%d in index.json", n)
	case seen.served("/referrers/"):
		x.note("referrers", checkOK, "", "API, %d listed", n)
	default:
		x.note("referrers", checkWarn, "sign and grant from one place at a time", "no API, %d listed under a tag: of two who write at the same moment one is lost", n)
	}
}

// clock compares this machine's time with the registry's.
func (x *examination) clock(seen *observer) {
	skew, ok := seen.skew()
	if !ok {
		x.note("clock", checkUnknown, "", "the registry does not say what time it is")
		return
	}
	result, next := checkOK, ""
	if abs := skew.Abs(); abs > skewWarn {
		result, next = checkWarn, "set the clock of this machine: expiry of releases, policies and grants is judged by it"
		if abs > skewFail {
			result = checkFail
		}
	}
	x.note("clock", result, next, "%s from the registry's", skew.Abs().Round(time.Second))
}
