// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package cuda_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const mib = 1 << 20

// stored is a tensor of the model that tests load.
type stored struct {
	name, dtype string
	shape       []int64
	size        int
}

// tensors have sizes on both sides of a slot of 1 MiB and of a ring of two, and
// shapes whose rows fit none. Packed types end their rows within a byte.
var tensors = []stored{
	{"norm", "F32", []int64{1000}, 4000},
	{"scalar", "F16", []int64{}, 2},
	{"empty", "BF16", []int64{0, 7}, 0},
	{"odd", "U8", []int64{3, 5, 7}, 105},
	{"slot", "U8", []int64{mib}, mib},
	{"slot and a byte", "U8", []int64{mib + 1}, mib + 1},
	{"embed", "BF16", []int64{3001, 700}, 3001 * 1400},
	{"long rows", "F32", []int64{1, 2, 600000}, 4800000},
	{"packed", "F4", []int64{5002, 501}, 5002 * 501 / 2},
	{"head", "U8", []int64{100, 999}, 99900},
}

// source is the model: a safetensors file and a GGUF file with one tensor of
// Q8_0, whose blocks are of 32 elements in 34 bytes.
var source = sync.OnceValue(func() fstest.MapFS {
	var entries []string
	at := 0
	for _, s := range tensors {
		shape := strings.ReplaceAll(fmt.Sprint(s.shape), " ", ",")
		entries = append(entries, fmt.Sprintf(`%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, s.name, s.dtype, shape, at, at+s.size))
		at += s.size
	}
	header := "{" + strings.Join(entries, ",") + "}"
	safetensors := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	safetensors = append(safetensors, noise(1, at)...)

	const elements = 2*mib + 64
	gguf := append([]byte("GGUF"), 3, 0, 0, 0)
	for _, n := range []uint64{1, 0, 9} { // tensors, keys, bytes of the name
		gguf = binary.LittleEndian.AppendUint64(gguf, n)
	}
	gguf = append(gguf, "quantised"...)
	gguf = binary.LittleEndian.AppendUint32(gguf, 1) // dimensions
	gguf = binary.LittleEndian.AppendUint64(gguf, elements)
	gguf = binary.LittleEndian.AppendUint32(gguf, 8) // Q8_0
	gguf = binary.LittleEndian.AppendUint64(gguf, 0) // offset
	gguf = append(gguf, make([]byte, -len(gguf)&31)...)
	gguf = append(gguf, noise(2, elements/32*34)...)
	return fstest.MapFS{"model.safetensors": {Data: safetensors}, "model.gguf": {Data: gguf}}
})

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// opened pushes the model encrypted, and opens it. Audit may be nil.
func opened(t *testing.T, audit func(context.Context, modelsec.Event) error) *modelsec.Model {
	t.Helper()
	return openedAt(t, registry.NewMemory(), audit)
}

func openedAt(t *testing.T, place registry.Opener, audit func(context.Context, modelsec.Event) error) *modelsec.Model {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), crand.Reader))
	identity := must(encrypt.GenerateIdentity(""))
	c := &modelsec.Client{Registry: place, Identities: []encrypt.Identity{identity}, Hooks: modelsec.Hooks{Audit: audit}}
	const ref = "registry.example.com/team/llama:v3"
	_, err := c.Push(t.Context(), ref, source(), &modelsec.PushOptions{
		Signer: must(provenance.KeySigner(key)), Recipients: []encrypt.Recipient{identity.Recipient()}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := c.Open(t.Context(), ref, provenance.RequireKey(key.Public()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// counter counts the bytes of blobs that are asked for.
type counter struct {
	registry.Opener
	fetched atomic.Int64
}

func (c *counter) Open(ctx context.Context, name string) (registry.Store, error) {
	s, err := c.Opener.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	return &countedStore{s.(registry.WriteStore), c}, nil
}

type countedStore struct {
	registry.WriteStore
	counter *counter
}

func (s *countedStore) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	s.counter.fetched.Add(n)
	return s.WriteStore.Fetch(ctx, d, off, n)
}

// bytesOf is what the source has of a tensor that is not a slice.
func bytesOf(t modelsec.Tensor) []byte {
	return source()[t.File].Data[t.Offset : t.Offset+t.Size]
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
