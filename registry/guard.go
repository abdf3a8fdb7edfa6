// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
)

// errForbiddenAddress ends a connection before its first packet.
var errForbiddenAddress = errors.New("address refused")

// reach orders networks by how far from everybody they are. A registry may
// send its clients to addresses of its own reach or less: an object store
// beside it, or one on the internet, but not from the internet to a machine
// room, nor from there to the client's own loopback.
type reach int32

const (
	reachPublic reach = iota
	reachPrivate
	reachLoopback
	reachNever // link-local, where metadata services live; multicast; none
)

var (
	carrierGradeNAT = netip.MustParsePrefix("100.64.0.0/10")
	// These embed an IPv4 address that a gateway may take out again.
	translated = []netip.Prefix{netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("2002::/16")}
)

func reachOf(a netip.Addr) reach {
	a = a.Unmap()
	for _, p := range translated {
		if p.Contains(a) {
			return reachNever
		}
	}
	switch {
	case a.IsLoopback():
		return reachLoopback
	case a.IsPrivate(), carrierGradeNAT.Contains(a):
		return reachPrivate
	case a.IsGlobalUnicast():
		return reachPublic
	}
	return reachNever
}

// guard checks addresses at dial time, after the name has been resolved, so
// that a name which resolves differently the second time gains nothing.
type guard struct {
	own atomic.Int32 // the reach at which the registry itself was dialled
}

// note is the net.Dialer.Control for the registry itself.
func (g *guard) note(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	r := int32(reachOf(a.Addr()))
	for old := g.own.Load(); r > old && !g.own.CompareAndSwap(old, r); old = g.own.Load() {
	}
	return nil
}

// redirected is the Control for hosts that the registry redirects to.
func (g *guard) redirected(_, address string, _ syscall.RawConn) error {
	return refuseAbove(min(reach(g.own.Load()), reachLoopback), address)
}

// realm is the Control for token services on other hosts, which are sent
// credentials; those in private networks must be named by the caller.
func (g *guard) realm(_, address string, _ syscall.RawConn) error {
	return refuseAbove(reachPublic, address)
}

func refuseAbove(allowed reach, address string) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if reachOf(a.Addr()) > allowed {
		return fmt.Errorf("%w: the registry points to %s, in a network it is not in", errForbiddenAddress, a.Addr())
	}
	return nil
}
