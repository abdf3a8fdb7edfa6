// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

const layoutPrefix = "oci:"

// reference parses an argument, and remembers the first for messages.
func (t *tool) reference(text string) (registry.Reference, error) {
	ref, err := registry.ParseReference(text)
	if err != nil {
		return ref, usage(err)
	}
	if t.ref.Name == "" {
		t.ref = ref
	}
	return ref, nil
}

// version parses a reference that must say which version is meant.
func (t *tool) version(text string) (registry.Reference, error) {
	ref, err := t.reference(text)
	if err == nil && ref.Tag == "" && ref.Digest == "" {
		err = usagef("%q names no version", text).hinted("add a :tag or an @sha256: digest; modelsec tags %s lists the tags", ref.Name)
	}
	return ref, err
}

// pinned parses a reference that must have a digest: the verb signs something
// about it or changes who can open it, and a tag may have moved since the
// caller looked.
func (t *tool) pinned(text string) (registry.Reference, error) {
	ref, err := t.reference(text)
	if err == nil && ref.Digest == "" {
		err = usagef("%q has no digest, and a tag may have moved since you looked", text).
			hinted("modelsec verify %s … prints the reference with the digest that it verified", text)
	}
	return ref, err
}

// at is the reference with the digest that it was found to have.
func at(ref registry.Reference, d digest.Digest) string {
	ref.Digest = d
	return ref.String()
}

// host is empty for a layout on disk.
func host(ref registry.Reference) string {
	if strings.HasPrefix(ref.Name, layoutPrefix) {
		return ""
	}
	h, _, _ := strings.Cut(ref.Name, "/")
	return h
}

// registryClient speaks to the hosts of the references as the flags say.
// Other hosts, to which these may redirect, are none of the flags' business.
func (t *tool) registryClient(refs ...registry.Reference) (*registry.Client, error) {
	h := registry.Host{PlainHTTP: t.plainHTTP}
	var err error
	if h.TLS, err = t.tlsConfig(); err != nil {
		return nil, err
	}
	c := &registry.Client{Connections: t.concurrency, Hosts: make(map[string]registry.Host)}
	for _, ref := range refs {
		if name := host(ref); name != "" {
			c.Hosts[name] = h
		}
	}
	return c, nil
}

// tlsConfig is nil where --ca-file was not given.
func (t *tool) tlsConfig() (*tls.Config, error) {
	if t.caFile == "" {
		return nil, nil
	}
	if t.plainHTTP {
		return nil, usagef("--ca-file and --plain-http exclude each other")
	}
	text, err := os.ReadFile(t.caFile)
	if err != nil {
		return nil, usage(err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, usagef("--ca-file %s: no certificate in it", t.caFile)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// client returns the client for the references. done must be called when the
// operation has ended, so that a progress bar gives the line back; it may be
// called again.
func (t *tool) client(refs ...registry.Reference) (c *modelsec.Client, done func(), err error) {
	r, err := t.registryClient(refs...)
	if err != nil {
		return nil, nil, err
	}
	hook, end := t.watch()
	return &modelsec.Client{Registry: r, MemoryLimit: int64(t.memory), Hooks: modelsec.Hooks{Progress: hook}}, sync.OnceFunc(end), nil
}
