// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// tuned is large with the last byte of one file changed.
func tuned() fstest.MapFS {
	src := maps.Clone(large())
	b := bytes.Clone(src["other.safetensors"].Data)
	b[len(b)-1] ^= 1
	src["other.safetensors"] = &fstest.MapFile{Data: b, ModTime: now}
	return src
}

// TestReusedLayersAreNotSentAgain: what crosses the line is what changed, and
// the artifact is the one that a push of everything makes.
func TestReusedLayersAreNotSentAgain(t *testing.T) {
	p, src := newParty(t), tuned()
	for _, layerSize := range []int64{0, 4 * segment} {
		for _, test := range []struct{ name, to, reuse string }{
			{"SameRepository", "team/llama:v4", "team/llama:v3"},
			{"SameTag", "team/llama:v3", "team/llama:v3"},
			{"OtherRepository", "tuned/llama:v1", "team/llama:v3"},
		} {
			t.Run(fmt.Sprintf("%s/%d", test.name, layerSize), func(t *testing.T) {
				server, l := ociserver.New(), &line{}
				host := over(t, l, server)
				o := p.options(nil)
				o.Name, o.LayerSize, o.Sequence = "team/llama", layerSize, 1
				c := p.client(remote())
				push(t, c, host+"/team/llama:v3", large(), o)
				plain := push(t, c, host+"/whole/llama:v1", src, o)

				last := lastProgress(c)
				before := l.received
				o.Reuse, o.Sequence = host+"/"+test.reuse, 2
				got := push(t, c, host+"/"+test.to, src, o)
				if sent, most := l.received-before, int64(len(src["other.safetensors"].Data))+32<<10; sent > most {
					t.Errorf("%d bytes were sent, of which %d changed", sent, most)
				}
				if changed := int64(len(src["other.safetensors"].Data)); last.Done != last.Total || last.Found != last.Total-changed {
					t.Errorf("the progress ended with %d bytes of %d, of which %d were there, and %d changed", last.Done, last.Total, last.Found, changed)
				}
				if got.Digest != plain.Digest {
					t.Errorf("the artifact is %s, and %s without reuse", got.Digest, plain.Digest)
				}
				dest := filepath.Join(t.TempDir(), "model")
				if _, err := c.Pull(t.Context(), host+"/"+test.to, dest, p.policy().For(host+"/team/llama"), nil); err != nil {
					t.Fatal(err)
				}
				sameFiles(t, dest, src)
				if held, lent := c.Held(); held != 0 || lent != 0 {
					t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
				}
			})
		}
	}
}

// TestReuseReadsOnlyUpToTheChange twice.
func TestReuseReadsOnlyUpToTheChange(t *testing.T) {
	const name, size = "model.safetensors", 400 * segment
	memory, c := registry.NewMemory(), &modelsec.Client{}
	c.Registry = memory
	o := &modelsec.PushOptions{Name: "m"}
	modelsec.SetSegmentSize(o, segment)
	src := source(map[string]int{name: size})
	push(t, c, tagged, src, o)
	src[name].Data[0] ^= 1
	counting := &countingFS{FS: src, read: make(map[string]int64)}
	o.Reuse = tagged
	last := lastProgress(c)
	push(t, c, tagged, counting, o)
	if again := counting.read[name] - size; again == 0 || again > size/4 {
		t.Errorf("%d of %d bytes were read twice of a file whose first byte changed", again, size)
	}
	if last.Done != size || last.Found != 0 {
		t.Errorf("the progress ended with %d bytes of %d, and %d that were there", last.Done, size, last.Found)
	}
}

// TestReuseBelievesNothing: another tool says of layers only what they are called
// and how large they are, and whoever made an index may have lied.
func TestReuseBelievesNothing(t *testing.T) {
	p, layers := newParty(t), twoFiles()
	src := make(fstest.MapFS)
	for _, l := range layers {
		src[l.path] = &fstest.MapFile{Data: bytes.Clone(l.content), ModTime: now}
	}
	src["b.safetensors"].Data[segment] ^= 1
	for name, earlier := range map[string]func(t *testing.T, o registry.Opener) ocispec.Descriptor{
		"WithoutIndex": func(t *testing.T, o registry.Opener) ocispec.Descriptor {
			return foreign(t, p, o, layers, nil)
		},
		"LyingIndex": func(t *testing.T, o registry.Opener) ocispec.Descriptor {
			f := forgery{by: p, profile: index.Plain, layers: layers}
			f.digests = func(d []byte) []byte {
				sum := sha256.Sum256(src["b.safetensors"].Data[segment:])
				return append(d[:3*sha256.Size], sum[:]...)
			}
			return f.push(t, o)
		},
	} {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			o, c := p.options(nil), p.client(memory)
			last := lastProgress(c)
			o.Name, o.Reuse = "team/llama", pinned(earlier(t, memory))
			push(t, c, repository+":v4", src, o)
			if size := int64(segment + 100); last.Done != 2*size || last.Found != size {
				t.Errorf("%d of %d bytes are done and %d were there, want one file of %d", last.Done, last.Total, last.Found, size)
			}
			dest := filepath.Join(t.TempDir(), "model")
			if _, err := p.client(memory).Pull(t.Context(), repository+":v4", dest, p.policy(), nil); err != nil {
				t.Fatal(err)
			}
			sameFiles(t, dest, src)
		})
	}
}

// TestReuseSendsWhatARegistryWillNotTakeOver from another repository, whatever it
// says, and soon stops to ask.
func TestReuseSendsWhatARegistryWillNotTakeOver(t *testing.T) {
	const layers = 40
	sizes := make(map[string]int)
	for i := range layers {
		sizes[fmt.Sprintf("%02d.safetensors", i)] = 2*segment + i
	}
	src := source(sizes)
	for _, status := range []int{http.StatusAccepted, http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			p, server := newParty(t), ociserver.New()
			var asked atomic.Int32
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Query().Has("mount") {
					asked.Add(1)
					if r.URL.RawQuery = ""; status != http.StatusAccepted {
						w.WriteHeader(status)
						return
					}
				}
				server.ServeHTTP(w, r)
			}))
			t.Cleanup(h.Close)
			host := strings.TrimPrefix(h.URL, "http://")
			c, o := p.client(remote()), p.options(nil)
			o.Name = "team/llama"
			want := push(t, c, host+"/team/llama:v3", src, o)
			o.Reuse = host + "/team/llama:v3"
			last := lastProgress(c)
			if got := push(t, c, host+"/other/llama:v3", src, o); got.Digest != want.Digest {
				t.Errorf("the artifact is %s, want %s", got.Digest, want.Digest)
			}
			if last.Done != last.Total || last.Found != 0 {
				t.Errorf("%d of %d bytes are done and %d were there", last.Done, last.Total, last.Found)
			}
			if n := asked.Load(); n == 0 || n > 8 {
				t.Errorf("%d of %d layers were asked for", n, layers)
			}
			if _, err := c.Verify(t.Context(), host+"/other/llama:v3", p.policy().For(host+"/team/llama")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReuseOfPackedFilesTellsTheirDigests, although none is sent.
func TestReuseOfPackedFilesTellsTheirDigests(t *testing.T) {
	p, memory := newParty(t), registry.NewMemory()
	sizes := make(map[string]int)
	for i := range 320 {
		sizes[fmt.Sprintf("vocab/%03d.txt", i)] = 1000 + i
	}
	src, c, o := source(sizes), p.client(memory), p.options(nil)
	push(t, c, tagged, src, o)
	last := lastProgress(c)
	o.Reuse = tagged
	o.FileDigests = func(_ context.Context, files map[string]digest.Digest) error {
		for name, f := range src {
			if files[name] != digest.FromBytes(f.Data) {
				t.Errorf("%s: got %q", name, files[name])
			}
		}
		return nil
	}
	push(t, c, tagged, src, o)
	if last.Found == 0 || last.Found != last.Total {
		t.Errorf("%d of %d bytes were there", last.Found, last.Total)
	}
}

// TestReuseNeedsNoMoreMemoryThanAPush, and works where its index is of no use.
func TestReuseNeedsNoMoreMemoryThanAPush(t *testing.T) {
	p, memory := newParty(t), registry.NewMemory()
	src := large()
	push(t, p.client(memory), tagged, src, p.options(nil))
	want := openShelf(t, memory, repository).resolve("v3")
	index := openShelf(t, memory, repository).manifest(want).Annotations[indexKey]
	for name, o := range map[string]registry.Opener{
		"LittleMemory": memory,
		"BrokenIndex":  flipping(memory, digest.Digest(index)),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				c := p.client(o)
				c.MemoryLimit = 6*segment + 1<<10
				last := lastProgress(c)
				options := p.options(nil)
				options.Reuse = tagged
				push(t, c, repository+":v4", src, options)
				if last.Found != last.Total {
					t.Errorf("%d of %d bytes were there", last.Found, last.Total)
				}
				if held, lent := c.Held(); held != 0 || lent != 0 {
					t.Errorf("%d and %d bytes of the budget were not returned", held, lent)
				}
			})
		})
	}
}

// TestReuseRefusesWhatIsNotShared: what could never be shared, and what is not there, before
// anything is sent.
func TestReuseRefusesWhatIsNotShared(t *testing.T) {
	p, memory := newParty(t), registry.NewMemory()
	c := p.client(memory)
	push(t, c, tagged, small(), p.options(nil))
	push(t, c, repository+":sealed", small(), p.options(p.recipients()))
	for name, test := range map[string]struct {
		reuse string
		o     *modelsec.PushOptions
		want  error
	}{
		"EncryptedPush":   {tagged, p.options(p.recipients()), modelsec.ErrConfig},
		"EncryptedModel":  {repository + ":sealed", p.options(nil), modelsec.ErrConfig},
		"AnotherRegistry": {"other.example.com/team/llama:v3", p.options(nil), modelsec.ErrConfig},
		"NoVersion":       {repository, p.options(nil), modelsec.ErrConfig},
		"NotThere":        {repository + ":v9", p.options(nil), registry.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			test.o.Reuse = test.reuse
			_, err := c.Push(t.Context(), repository+":v4", small(), test.o)
			refused(t, err, test.want)
			contains(t, err, test.reuse)
			if _, err := openShelf(t, memory, repository).Resolve(t.Context(), "v4"); err == nil {
				t.Error("the tag was set")
			}
		})
	}
}
