// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// The test binary runs itself as the process that is killed: envPull names the
// reference, envDest the destination, envKeys a directory with its keys.
const (
	envPull = "MODELSEC_TEST_PULL"
	envDest = "MODELSEC_TEST_DEST"
	envKeys = "MODELSEC_TEST_KEYS"
)

func pullAsChild() error {
	identity, err := os.ReadFile(filepath.Join(os.Getenv(envKeys), "identity"))
	if err != nil {
		return err
	}
	id, err := encrypt.ParseIdentity(string(identity))
	if err != nil {
		return err
	}
	document, err := os.ReadFile(filepath.Join(os.Getenv(envKeys), "policy"))
	if err != nil {
		return err
	}
	policy, err := provenance.ParsePolicy(document)
	if err != nil {
		return err
	}
	c := &modelsec.Client{Registry: remote(), Identities: []encrypt.Identity{id}}
	_, err = c.Pull(context.Background(), os.Getenv(envPull), os.Getenv(envDest), policy, nil)
	return err
}

// killer serves content layers slowly and, after some bytes of them, calls
// kill once.
type killer struct {
	http.Handler
	after  int64
	served atomic.Int64
	kill   func()
	once   sync.Once
}

func (k *killer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
		w = &slowWriter{w, k}
	}
	k.Handler.ServeHTTP(w, r)
}

type slowWriter struct {
	http.ResponseWriter
	k *killer
}

func (w *slowWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = w.ResponseWriter.Write(p[n:min(n+16<<10, len(p))])
		n += m
		if w.k.served.Add(int64(m)) >= w.k.after {
			w.k.once.Do(w.k.kill)
		}
	}
	return n, err
}

// TestKilledPullIsResumed kills the process at random points. The next pull
// completes, and fetches what was missing and what was under way.
func TestKilledPullIsResumed(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := newParty(t)
	keys := t.TempDir()
	document := must(p.policy().MarshalJSON())
	if err := errors.Join(os.WriteFile(filepath.Join(keys, "identity"), []byte(p.identity.PEM()), 0o600), os.WriteFile(filepath.Join(keys, "policy"), document, 0o600)); err != nil {
		t.Fatal(err)
	}
	src := source(map[string]int{"model.safetensors": 90*segment + 77, "second/part.safetensors": 30 * segment, "config.json": 500})
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			server := ociserver.New()
			plain := serve(t, server) + ":v3"
			d := push(t, p.client(remote()), plain, src, options())
			layers := openShelf(t, remote(), untag(plain)).manifest(d).Layers
			for i := range 5 {
				after := rand.Int64N(sizeOf(src))
				dest := filepath.Join(t.TempDir(), "model")
				child := exec.Command(self)
				var out bytes.Buffer
				child.Stderr = &out
				started := make(chan struct{})
				h := httptest.NewServer(&killer{Handler: server, after: after, kill: func() {
					<-started
					time.Sleep(15 * time.Millisecond) // so that it writes what it has
					child.Process.Kill()
				}})
				ref := strings.TrimPrefix(h.URL, "http://") + "/team/llama:v3"
				child.Env = append(os.Environ(), envPull+"="+ref, envDest+"="+dest, envKeys+"="+keys)
				if err := child.Start(); err != nil {
					t.Fatal(err)
				}
				close(started)
				err := child.Wait()
				h.CloseClientConnections()
				h.Close()
				if _, statErr := os.Stat(dest); statErr == nil {
					sameFiles(t, dest, src) // it was done before it was killed
					continue
				}
				if err == nil || out.Len() > 0 {
					t.Fatalf("run %d: the child ended with %v: %s", i, err, &out)
				}
				missing := missingBytes(t, dest, src)
				before := int64(0)
				for _, l := range layers {
					before += server.Traffic(l.Digest).Bytes
				}
				if _, err := p.client(remote()).Pull(t.Context(), plain, dest, p.policy(), nil); err != nil {
					t.Fatalf("run %d, killed after %d bytes: %v", i, after, err)
				}
				sameFiles(t, dest, src)
				fetched := -before
				for _, l := range layers {
					fetched += server.Traffic(l.Digest).Bytes
				}
				// A proof may not have been written for each of 16 streams; the index
				// and the overhead of sealed segments come on top.
				most := missing + 16*segment + missing/256 + 32<<10
				t.Logf("killed after %d bytes of %d: %d missing, %d fetched", after, sizeOf(src), missing, fetched)
				if fetched > most {
					t.Errorf("run %d: %d bytes were fetched, want at most %d", i, fetched, most)
				}
			}
		})
	}
}

// missingBytes counts the content whose segment the killed process did not
// leave whole.
func missingBytes(t *testing.T, dest string, src fs.FS) (n int64) {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(filepath.Dir(dest), ".model.modelsec-*"))
	if len(found) == 0 {
		return sizeOf(src)
	}
	err := fs.WalkDir(src, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want := must(fs.ReadFile(src, p))
		got, err := os.ReadFile(filepath.Join(found[0], "files", filepath.FromSlash(p)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for at := 0; at < len(want); at += segment {
			end := min(at+segment, len(want))
			if len(got) < end || !bytes.Equal(got[at:end], want[at:end]) {
				n += int64(end - at)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(fmt.Errorf("staged files: %w", err))
	}
	return n
}
