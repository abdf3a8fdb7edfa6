// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
)

// cachedPull pulls through a cache and returns what the registry sent of the
// layers.
func cachedPull(t *testing.T, c *modelsec.Client, p *party, ref string, server *ociserver.Server, src map[string][]byte) int64 {
	t.Helper()
	before := layerTraffic(t, c, ref, server)
	dir := filepath.Join(t.TempDir(), "model")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.Pull(ctx, ref, dir, p.policy(), nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range src {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("file %q differs: %v", name, err)
		}
	}
	return layerTraffic(t, c, ref, server) - before
}

func layerTraffic(t *testing.T, c *modelsec.Client, ref string, server *ociserver.Server) (n int64) {
	t.Helper()
	s := openShelf(t, c.Registry, untag(ref))
	for _, l := range s.manifest(s.resolve("v3")).Layers {
		if l.Annotations[pathKey] != indexName {
			n += server.Traffic(l.Digest).Bytes
		}
	}
	return n
}

func cachedFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestCacheServesWhatItProves pulls twice, then spoils the cache in every way
// that somebody who may write to it can, and pulls again.
func TestCacheServesWhatItProves(t *testing.T) {
	p := newParty(t)
	src := large()
	data := make(map[string][]byte)
	for name, f := range src {
		data[name] = f.Data
	}
	for profile, options := range p.profiles() {
		t.Run(profile, func(t *testing.T) {
			server := ociserver.New()
			ref := serve(t, server) + ":v3"
			push(t, p.client(remote()), ref, src, options())
			cache := t.TempDir()
			fresh := func() *modelsec.Client {
				c := p.client(remote())
				c.CacheDir = cache
				return c
			}
			if n := cachedPull(t, fresh(), p, ref, server, data); n == 0 {
				t.Error("nothing was fetched into an empty cache")
			}
			if n := cachedPull(t, fresh(), p, ref, server, data); n != 0 {
				t.Errorf("%d bytes of layers were fetched that the cache had", n)
			}
			for name, spoil := range map[string]func(file string) error{
				"Flipped":   func(file string) error { return change(file, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }) },
				"Truncated": func(file string) error { return os.Truncate(file, 10) },
				"Longer":    func(file string) error { return change(file, func(b []byte) []byte { return append(b, 0) }) },
				"Directory": func(file string) error {
					if err := os.Remove(file); err != nil {
						return err
					}
					return os.Mkdir(file, 0o700)
				},
				"Link": func(file string) error {
					if err := os.Remove(file); err != nil {
						return err
					}
					return os.Symlink("/dev/zero", file)
				},
				"Pipe": func(file string) error {
					if err := os.Remove(file); err != nil {
						return err
					}
					return makePipe(file)
				},
				"Unreadable": func(file string) error { return os.Chmod(file, 0) },
			} {
				t.Run(name, func(t *testing.T) {
					if err := os.RemoveAll(cache); err != nil {
						t.Fatal(err)
					}
					cachedPull(t, fresh(), p, ref, server, data)
					for _, file := range cachedFiles(t, cache) {
						if err := spoil(file); err != nil {
							t.Fatal(err)
						}
					}
					cachedPull(t, fresh(), p, ref, server, data)
				})
			}
		})
	}
}

func change(file string, f func([]byte) []byte) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return os.WriteFile(file, f(b), 0o600)
}

// TestCacheHoldsNoPlaintext: of an encrypted artifact, ciphertext only.
func TestCacheHoldsNoPlaintext(t *testing.T) {
	p := newParty(t)
	src := large()
	server := ociserver.New()
	ref := serve(t, server) + ":v3"
	push(t, p.client(remote()), ref, src, p.options(p.recipients()))
	c := p.client(remote())
	c.CacheDir = t.TempDir()
	cachedPull(t, c, p, ref, server, nil)
	files := cachedFiles(t, c.CacheDir)
	if len(files) == 0 {
		t.Fatal("the cache is empty")
	}
	for _, file := range files {
		b := must(os.ReadFile(file))
		for name, f := range src {
			if bytes.Contains(b, f.Data[100:132]) {
				t.Errorf("plaintext of %s is in the cache", name)
			}
		}
		if info := must(os.Stat(file)); info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
}

// TestCacheKeepsItsLimit, with any number of clients that share it.
func TestCacheKeepsItsLimit(t *testing.T) {
	p := newParty(t)
	server := ociserver.New()
	ref := serve(t, server) + ":v3"
	push(t, p.client(remote()), ref, large(), p.options(nil))
	cache := t.TempDir()
	const limit = 10 * segment
	var pulls sync.WaitGroup
	for range 3 {
		pulls.Go(func() {
			c := p.client(remote())
			c.CacheDir, c.CacheLimit = cache, limit
			cachedPull(t, c, p, ref, server, nil)
		})
	}
	pulls.Wait()
	var total int64
	for _, file := range cachedFiles(t, cache) {
		total += must(os.Stat(file)).Size()
	}
	// A client looks at the whole after every eighth of the limit it wrote.
	if total > limit+3*limit/8+3*segment {
		t.Errorf("the cache holds %d bytes, limit %d", total, limit)
	}
}
