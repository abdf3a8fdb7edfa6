// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// flips is how many places are flipped, one after the other, under a reader.
const flips = 1000

// place is a byte of the weight file as the registry stores it.
type place struct {
	path    string // of the blob on the registry's disk
	offset  int64  // in the blob
	segment int64  // of the layer
	content int64  // where the content of the segment begins in the file
}

// flip changes the byte; twice is once too many.
func (p place) flip() error {
	f, err := os.OpenFile(p.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, p.offset)
	if err == nil {
		b[0] ^= 0x10
		_, err = f.WriteAt(b, p.offset)
	}
	return errors.Join(err, f.Close())
}

// blob is where docker-registry keeps a blob.
func (s server) blob(d digest.Digest) string {
	return filepath.Join(s.blobs, "sha256", d.Encoded()[:2], d.Encoded(), "data")
}

// places draws bytes of the layers of the weight file, from a fixed seed. The
// geometry is computed from FORMAT.md §5 and not by the library. FLOE headers
// are left out: readers of ranges take them from the index.
func places(t *testing.T, s server, manifest digest.Digest, n int) []place {
	t.Helper()
	var m ocispec.Manifest
	decode(t, s.blob(manifest), &m)
	index := m.Layers[len(m.Layers)-1]
	var header struct {
		SegmentSize int64 `json:"segmentSize"`
	}
	b, err := os.ReadFile(s.blob(index.Digest))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b[8:8+binary.LittleEndian.Uint64(b)], &header); err != nil {
		t.Fatal(err)
	}
	// config.json has the last layer before the index.
	var out []place
	weights := m.Layers[:len(m.Layers)-2]
	draw := rand.New(rand.NewPCG(1, 2))
	for range n {
		var begin int64 // of the layer, in the file
		at := draw.Int64N(stored(weights))
		for _, l := range weights {
			n := l.Size - 74
			if at < n {
				k := at / (header.SegmentSize + 32)
				out = append(out, place{path: s.blob(l.Digest), offset: 74 + at, segment: k, content: begin + k*header.SegmentSize})
				break
			}
			at -= n
			begin += n - 32*((n+header.SegmentSize+31)/(header.SegmentSize+32))
		}
	}
	return out
}

// stored counts the bytes of segments.
func stored(layers []ocispec.Descriptor) (n int64) {
	for _, l := range layers {
		n += l.Size - 74
	}
	return n
}

func decode(t *testing.T, path string, v any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// open opens what the command published, with the library.
func (c *command) open(t *testing.T, ref string) *modelsec.Model {
	t.Helper()
	pub, err := provenance.ParsePublicKey(c.text(t, "signing.pub"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := encrypt.ParseIdentity(string(c.text(t, "identity.key")))
	if err != nil {
		t.Fatal(err)
	}
	client := &modelsec.Client{Registry: &registry.Client{Credentials: anonymous}, Identities: []encrypt.Identity{identity}}
	m, err := client.Open(t.Context(), ref, provenance.RequireKey(pub))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// flipInReaders flips a thousand places on the registry's disk, one at a time in
// each segment, and reads one byte of the segment: which one must not matter.
func flipInReaders(t *testing.T, c *command, s server, ref string) {
	m := c.open(t, ref)
	r, err := m.ReaderAt(t.Context(), weightFile)
	if err != nil {
		t.Fatal(err)
	}
	segments := make(map[int64][]place)
	for _, p := range places(t, s, m.Descriptor().Digest, flips) {
		segments[p.content] = append(segments[p.content], p)
	}
	var group sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, list := range segments {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for _, p := range list {
				if err := errors.Join(p.flip(), refused(r, p), p.flip()); err != nil {
					t.Errorf("offset %d of %s: %v", p.offset, p.path, err)
				}
			}
		})
	}
	group.Wait()
}

// refused expects that a flipped place is found and named.
func refused(r interface {
	ReadAt([]byte, int64) (int, error)
}, p place) error {
	n, err := r.ReadAt(make([]byte, 1), p.content)
	e, ok := errors.AsType[*modelsec.Error](err)
	if n != 0 || !errors.Is(err, modelsec.ErrDigest) || !ok || e.File != weightFile || e.Segment != p.segment {
		return fmt.Errorf("ReadAt = %d, %v; want ErrDigest for segment %d of %s", n, err, p.segment, weightFile)
	}
	return nil
}

// flipInPulls flips a single place under each of a few whole pulls. None finds
// anything of the one before, except that at the end the last is taken up again
// with its place mended.
func flipInPulls(t *testing.T, c *command, s server, ref, dir string) {
	var pull []string
	var dest string
	for _, p := range places(t, s, c.open(t, ref).Descriptor().Digest, 4) {
		if err := os.RemoveAll(filepath.Dir(dest)); dest != "" && err != nil {
			t.Fatal(err)
		}
		dest = filepath.Join(t.TempDir(), "model")
		pull = []string{"pull", ref, dest, "--key", c.key("signing.pub"), "--identity", c.key("identity.key")}
		if err := p.flip(); err != nil {
			t.Fatal(err)
		}
		got := c.run(t, 3, pull...)
		if !strings.Contains(got.stderr, weightFile) || !strings.Contains(got.stderr, fmt.Sprintf("segment %d", p.segment)) {
			t.Errorf("pull does not name segment %d of %s:\n%s", p.segment, weightFile, got.stderr)
		}
		absent(t, dest)
		if err := p.flip(); err != nil {
			t.Fatal(err)
		}
	}
	c.run(t, 0, pull...)
	sameByDiff(t, dir, dest)
}
