// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// rig is a registry with one artifact, whose replies about the content layers
// a test may spoil.
type rig struct {
	p      *party
	server *ociserver.Server
	ref    string
	src    fstest.MapFS
	layers []ocispec.Descriptor
	fault  func(r *http.Request) *ociserver.Fault // for GET of content layers
}

func newRig(t *testing.T, p *party, src fstest.MapFS, o *modelsec.PushOptions) *rig {
	t.Helper()
	r := &rig{p: p, server: ociserver.New(), src: src}
	content := make(map[string]bool)
	r.server.Fault = func(req *http.Request) *ociserver.Fault {
		if req.Method == http.MethodGet && content[filepath.Base(req.URL.Path)] && r.fault != nil {
			return r.fault(req)
		}
		return nil
	}
	r.ref = serve(t, r.server) + ":v3"
	d := push(t, p.client(remote()), r.ref, src, o)
	for _, l := range openShelf(t, remote(), untag(r.ref)).manifest(d).Layers {
		if l.Annotations[pathKey] != indexName {
			content[string(l.Digest)] = true
			r.layers = append(r.layers, l)
		}
	}
	return r
}

// sent is what the server sent of the content so far.
func (r *rig) sent() (requests int, bytes int64) {
	for _, l := range r.layers {
		n := r.server.Traffic(l.Digest)
		requests, bytes = requests+n.Requests, bytes+n.Bytes
	}
	return requests, bytes
}

func (r *rig) size() (n int64) {
	for _, l := range r.layers {
		n += l.Size
	}
	return n
}

// pull pulls, demands the right files and returns what was sent for it.
func (r *rig) pull(t *testing.T) (requests int, bytes int64) {
	t.Helper()
	before, sent := r.sent()
	dir := filepath.Join(t.TempDir(), "model")
	if _, err := r.p.client(remote()).Pull(t.Context(), r.ref, dir, r.p.policy(), nil); err != nil {
		t.Error(err)
		return 0, 0
	}
	sameFiles(t, dir, r.src)
	requests, bytes = r.sent()
	return requests - before, bytes - sent
}

// eachRig runs a test on one layer of some segments, in either profile.
func eachRig(t *testing.T, segments int, run func(t *testing.T, r *rig)) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			run(t, newRig(t, p, source(map[string]int{"model.safetensors": segments*segment - 100}), options()))
		})
	}
}

// once returns a fault for the first request only.
func once(f ociserver.Fault) func(*http.Request) *ociserver.Fault {
	var done atomic.Bool
	return func(*http.Request) *ociserver.Fault {
		if done.Swap(true) {
			return nil
		}
		return &f
	}
}

// TestBodiesThatBreakAreContinued cuts the first body before, at and after the
// borders of segments. What came before is not sent again.
func TestBodiesThatBreakAreContinued(t *testing.T) {
	eachRig(t, 6, func(t *testing.T, r *rig) {
		l := r.layers[0]
		for k := range int64(6) {
			border := head(l) + k*stride(l)
			for _, at := range []int64{border - 1, border, border + 1} {
				if at < 0 || at > l.Size {
					continue
				}
				r.fault = once(ociserver.Fault{Cut: true, CutAfter: at})
				_, sent := r.pull(t)
				if most := l.Size + 2*stride(l) + head(l); sent > most {
					t.Errorf("cut at %d: %d bytes were sent, want at most %d", at, sent, most)
				}
			}
		}
	})
}

// TestLinesThatBreakAgainAndAgainMoveOn: no reply has more than one segment and
// a half, and the pull completes all the same.
func TestLinesThatBreakAgainAndAgainMoveOn(t *testing.T) {
	eachRig(t, 12, func(t *testing.T, r *rig) {
		l := r.layers[0]
		r.fault = func(*http.Request) *ociserver.Fault {
			return &ociserver.Fault{Cut: true, CutAfter: head(l) + stride(l)*3/2}
		}
		r.pull(t)
	})
}

// TestFlippedBitIsRepaired: only the segment that was damaged on the way is
// fetched again.
func TestFlippedBitIsRepaired(t *testing.T) {
	eachRig(t, 6, func(t *testing.T, r *rig) {
		l := r.layers[0]
		r.fault = once(ociserver.Fault{Flip: []int64{head(l) + 2*stride(l) + 7}})
		requests, sent := r.pull(t)
		if want := l.Size + stride(l); requests != 2 || sent != want {
			t.Errorf("%d requests and %d bytes, want 2 and %d", requests, sent, want)
		}
	})
}

// TestFlippedBitsThatStayAreNamed.
func TestFlippedBitsThatStayAreNamed(t *testing.T) {
	eachRig(t, 6, func(t *testing.T, r *rig) {
		l := r.layers[0]
		r.fault = func(req *http.Request) *ociserver.Fault {
			at := head(l) + 2*stride(l) + 7
			if ranged := req.Header.Get("Range"); ranged != "" && !strings.HasPrefix(ranged, "bytes=0-") {
				at = 7 // only the damaged segment is asked for again
			}
			return &ociserver.Fault{Flip: []int64{at}}
		}
		err := pullFails(t, r.p.client(remote()), r.ref, r.p.policy(), modelsec.ErrDigest)
		var e *modelsec.Error
		if !errors.As(err, &e) || e.File != "model.safetensors" || e.Segment != 2 || e.Digest != l.Digest || e.Host == "" {
			t.Errorf("%v does not name file, segment, layer and host", err)
		}
	})
}

// TestIgnoredRangesAreBounded: a host that answers every range with the whole
// layer is read by whole layers, and not once for each range.
func TestIgnoredRangesAreBounded(t *testing.T) {
	p := newParty(t)
	r := newRig(t, p, source(map[string]int{"model.safetensors": 13 << 20}), p.options(nil))
	for name, fault := range map[string]ociserver.Fault{
		"Whole":         {IgnoreRange: true},
		"AnotherRange":  {Header: http.Header{"Content-Range": {"bytes 0-9/100"}}},
		"NoRange":       {Header: http.Header{"Content-Range": {}}},
		"UnknownLength": {Header: http.Header{"Content-Range": {"bytes 0-9/*"}}},
	} {
		t.Run(name, func(t *testing.T) {
			r.fault = func(req *http.Request) *ociserver.Fault {
				if req.Header.Get("Range") == "" {
					return nil
				}
				return &fault
			}
			requests, sent := r.pull(t)
			// The replies that were refused are cut off, but not before some of
			// them was on its way.
			if requests > 20 || sent > 3*r.size() {
				t.Errorf("%d requests and %d bytes for a layer of %d", requests, sent, r.size())
			}
		})
	}
}

// TestBusyRegistriesAreAskedAgain.
func TestBusyRegistriesAreAskedAgain(t *testing.T) {
	eachRig(t, 3, func(t *testing.T, r *rig) {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable} {
			r.fault = once(ociserver.Fault{Status: status})
			r.pull(t)
		}
	})
}

// TestRefusalsOfTheRegistryAreTyped: and the destination stays absent.
func TestRefusalsOfTheRegistryAreTyped(t *testing.T) {
	eachRig(t, 3, func(t *testing.T, r *rig) {
		for status, want := range map[int]error{
			http.StatusUnauthorized: registry.ErrUnauthorized,
			http.StatusForbidden:    registry.ErrUnauthorized,
			http.StatusNotFound:     registry.ErrNotFound,
		} {
			r.fault = func(*http.Request) *ociserver.Fault { return &ociserver.Fault{Status: status} }
			err := pullFails(t, r.p.client(remote()), r.ref, r.p.policy(), want)
			var e *modelsec.Error
			if !errors.As(err, &e) || e.Temporary() {
				t.Errorf("%d: %v is temporary", status, err)
			}
		}
	})
}

// TestTrailingBytesAreNotRead.
func TestTrailingBytesAreNotRead(t *testing.T) {
	eachRig(t, 3, func(t *testing.T, r *rig) {
		r.fault = once(ociserver.Fault{Extra: []byte("and more")})
		r.pull(t)
	})
}
