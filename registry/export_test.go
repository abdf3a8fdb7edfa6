// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"net/netip"
	"slices"
)

// ParseManifestForTest and ParseIndexForTest are the readers of what others
// wrote, for fuzzing.
func ParseManifestForTest(mediaType string, b []byte) error {
	_, _, err := parseManifest(mediaType, b)
	return err
}

func ParseIndexForTest(b []byte) (entries int, err error) {
	index, err := parseIndex(b)
	return len(index.Manifests), err
}

// MayDial reports whether a registry dialled at own may send its clients to
// target, as an object store or as a token service.
func MayDial(own, target netip.Addr) (store, realm bool) {
	var g guard
	if err := g.note("", netip.AddrPortFrom(own, 443).String(), nil); err != nil {
		panic(err)
	}
	address := netip.AddrPortFrom(target, 443).String()
	return !errors.Is(g.redirected("", address, nil), errForbiddenAddress), !errors.Is(g.realm("", address, nil), errForbiddenAddress)
}

// Challenge returns realm and service of a WWW-Authenticate header.
func Challenge(header string) (realm, service string, ok bool) {
	u, service, ok := bearerChallenge(header)
	if !ok {
		return "", "", false
	}
	return u.String(), service, true
}

// Limits of the package, for tests that go beyond them.
const (
	MaxManifest  = maxManifest
	MaxReferrers = maxReferrers
	MaxAttempts  = maxAttempts
	StallTimeout = stallTimeout
	MinChunk     = minChunk
	MaxChunk     = maxChunk
	MaxRedirects = maxRedirects
)

// Feed is the body of a streamed upload.
type Feed struct{ *feed }

func NewFeed() Feed           { return Feed{newFeed()} }
func (f Feed) Finish()        { f.finish() }
func (f Feed) End(err error)  { f.end(err) }
func (f Feed) Complete() bool { return f.sent() }

// DeleteScope is what all stores share that ask for leave to delete.
func DeleteScope() []string { return slices.Clone(scopeDelete) }
