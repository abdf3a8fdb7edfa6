// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// errorsOfFlips are what a flipped byte may end in, by what it is a byte of.
var errorsOfFlips = map[string][]error{
	"manifest":             {modelsec.ErrDigest},
	"index":                {modelsec.ErrDigest},
	"layer":                {modelsec.ErrDigest},
	"attestation":          {errPolicy},
	"attestation manifest": {errPolicy},
	"grant":                {modelsec.ErrNoKey},
	"grant manifest":       {modelsec.ErrNoKey},
	"grant signature":      {modelsec.ErrNoKey},
	// Nobody reads these two when a model is opened: nothing in them has a say.
	"config":       nil,
	"empty config": nil,
}

// TestEveryFlippedByteIsRefused flips every byte that the registry holds of an
// artifact, one after the other, and pulls. The policy needs the attestation
// and the identity every part of the grant. The attestation is the same in both
// profiles, and what nobody reads is tried at some places only.
func TestEveryFlippedByteIsRefused(t *testing.T) {
	p := newParty(t)
	p.signWithEd25519(t)
	src := source(map[string]int{"model.safetensors": 300, "config.json": 20})
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, src, options())
			total := 0
			for digest, piece := range openShelf(t, memory, repository).everything(d) {
				total += len(piece.b)
				stride := 1
				switch {
				case errorsOfFlips[piece.what] == nil:
					stride = 97
				case name == "plain" && strings.HasPrefix(piece.what, "attestation"):
					continue
				}
				t.Run(fmt.Sprintf("%s/%s", piece.what, digest.Encoded()[:8]), func(t *testing.T) {
					flipEach(t, p, memory, piece, stride)
				})
			}
			if total > 64<<10 {
				t.Fatalf("the artifact has %d bytes, want at most 64 KiB", total)
			}
		})
	}
}

// flipEach pulls once for each byte that stride leaves, with that byte flipped.
// Time is that of a bubble, so that the pauses between attempts take none.
func flipEach(t *testing.T, p *party, memory registry.Opener, piece piece, stride int) {
	want, known := errorsOfFlips[piece.what]
	if !known {
		t.Fatalf("no rule for %q", piece.what)
	}
	base := t.TempDir()
	work := make(chan int)
	var workers sync.WaitGroup
	for w := range 4 * runtime.GOMAXPROCS(0) {
		dir := filepath.Join(base, fmt.Sprint(w), "model")
		if err := os.Mkdir(filepath.Dir(dir), 0o700); err != nil {
			t.Fatal(err)
		}
		workers.Go(func() {
			for at := range work {
				synctest.Test(t, func(t *testing.T) { pullFlipped(t, p, memory, piece, at, dir, want) })
			}
		})
	}
	for at := 0; at < len(piece.b) && !t.Failed(); at += stride {
		work <- at
	}
	close(work)
	workers.Wait()
}

func pullFlipped(t *testing.T, p *party, memory registry.Opener, piece piece, at int, dir string, want []error) {
	bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
		if d.Digest != piece.desc.Digest {
			return b
		}
		b = bytes.Clone(b)
		b[at] ^= 1 << (at % 8)
		return b
	}}
	c := p.client(bad)
	c.Identities = []encrypt.Identity{&service{Identity: p.identity}}
	c.MemoryLimit = 1 << 20
	_, err := c.Pull(t.Context(), tagged, dir, p.policy(), nil)
	if want == nil {
		if err != nil {
			t.Errorf("byte %d of the %s: %v", at, piece.what, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
		return
	}
	if !isOneOf(err, want...) {
		t.Errorf("byte %d of the %s: got %v, want one of %v", at, piece.what, err, want)
	}
	absent(t, dir)
	var e *modelsec.Error
	if !errors.As(err, &e) {
		t.Errorf("byte %d of the %s: got a %T, want a *modelsec.Error", at, piece.what, err)
		return
	}
	header := piece.desc.MediaType == sealedType && at < encrypt.HeaderSize
	if piece.what == "layer" && (e.File == "" || e.Digest != piece.desc.Digest || e.Segment != 0 && !header) {
		t.Errorf("byte %d of a layer: %v names no file, layer or segment", at, err)
	}
}

// TestFlippedConfigIsRefusedByVerifyDeep: opening does not read the config,
// and whoever asks for everything to be compared gets that too.
func TestFlippedConfigIsRefusedByVerifyDeep(t *testing.T) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, small(), options())
			config := openShelf(t, memory, repository).manifest(d).Config
			bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
				if d.Digest == config.Digest {
					b = bytes.Clone(b)
					b[len(b)/2] ^= 1
				}
				return b
			}}
			if _, err := p.client(memory).VerifyDeep(t.Context(), tagged, p.policy()); err != nil {
				t.Fatal(err)
			}
			_, err := p.client(bad).VerifyDeep(t.Context(), tagged, p.policy())
			refused(t, err, modelsec.ErrDigest)
		})
	}
}

// TestFlippedSegmentIsNamed flips seeded places of a model of many segments.
func TestFlippedSegmentIsNamed(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, src, options())
			m := openShelf(t, memory, repository).manifest(d)
			random := rand.New(rand.NewPCG(1, 2))
			base := t.TempDir()
			for i := range 24 {
				l := m.Layers[random.IntN(len(m.Layers)-1)]
				head, stride := int64(0), int64(segment)
				if name == "encrypted" {
					head, stride = encrypt.HeaderSize, segment+encrypt.SegmentOverhead
				}
				at := head + random.Int64N(l.Size-head)
				synctest.Test(t, func(t *testing.T) {
					bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
						if d.Digest == l.Digest {
							b = bytes.Clone(b)
							b[at] ^= 0x10
						}
						return b
					}}
					dir := filepath.Join(base, fmt.Sprint(i))
					_, err := p.client(bad).Pull(t.Context(), tagged, dir, p.policy(), nil)
					refused(t, err, modelsec.ErrDigest)
					absent(t, dir)
					var e *modelsec.Error
					if !errors.As(err, &e) || e.Segment != (at-head)/stride || src[e.File] == nil || e.Digest != l.Digest {
						t.Errorf("offset %d of %s: got %v, want segment %d", at, l.Digest, err, (at-head)/stride)
					}
				})
			}
		})
	}
}
