// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const (
	rotatedVersions = 100
	rotateKillAt    = 90 // manifests put, two or three for every version
)

// recorder stands before a registry and counts.
type recorder struct {
	mu      sync.Mutex
	gets    map[string]int // by the last element of the path
	puts    map[string]int
	sent    int64
	written int    // manifests
	kill    func() // at rotateKillAt, if any
}

func newRecorder(t *testing.T, registry string) (*recorder, string) {
	r := &recorder{gets: make(map[string]int), puts: make(map[string]int)}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	forward.ErrorLog = log.New(io.Discard, "", 0) // of the process that is killed
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.count(req)
		forward.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	return r, strings.TrimPrefix(s.URL, "http://")
}

func (r *recorder) count(req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := req.URL.Path[strings.LastIndexByte(req.URL.Path, '/')+1:]
	if d := req.URL.Query().Get("digest"); d != "" {
		name = d
	}
	switch req.Method {
	case http.MethodGet:
		r.gets[name]++
	case http.MethodPut, http.MethodPost, http.MethodPatch:
		r.puts[name]++
		r.sent += max(req.ContentLength, 0)
	}
	if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
		if r.written++; r.written == rotateKillAt && r.kill != nil {
			r.kill()
		}
	}
}

// reset forgets what was counted.
func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.gets)
	clear(r.puts)
	r.sent, r.written = 0, 0
}

func lines(t *testing.T, path string) int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// TestKilledRotationGoesOn replaces a key in 100 versions by one command, which
// is killed on the way: the next completes it and asks the key service about
// what was not done. No content layer moves and no manifest changes.
func TestKilledRotationGoesOn(t *testing.T) {
	recorder, address := newRecorder(t, startRegistry(t, true))
	dir := t.TempDir()
	repository := address + "/team/rotated"
	succeed(t, modelsecCommand(t, dir, "keygen"))
	succeed(t, modelsecCommand(t, dir, "keygen", "--out", "fresh"))
	policy, layers, manifests := stock(t, dir, repository)
	recorder.reset()

	unwraps, report := filepath.Join(dir, "unwraps"), filepath.Join(dir, "report")
	rotate := func() *exec.Cmd {
		c := modelsecCommand(t, dir, "grant", "--all-tags", repository, "--replace", "identity.pub", "--with", "fresh/identity.pub",
			"--key", "signing.pub", "--sign-key", "signing.key", "--identity", "helper:file:"+filepath.Join(dir, "identity.key"), "--report", report, "--json")
		c.Env = append(c.Env, "FILE_LOG="+unwraps)
		return c
	}
	first := rotate()
	started := make(chan struct{})
	recorder.kill = sync.OnceFunc(func() { <-started; first.Process.Kill() })
	err := first.Start()
	close(started)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err == nil || first.ProcessState.ExitCode() != -1 {
		t.Fatalf("the rotation was not killed: %v", err)
	}
	done, asked := lines(t, report)-1, lines(t, unwraps)
	if done < 10 || done > rotatedVersions-10 || asked > done+1 {
		t.Fatalf("killed after %d versions and %d unwraps", done, asked)
	}

	outcomes := runRotation(t, rotate())
	// The version that was under way may be complete but for the note.
	if outcomes["before"] != done || outcomes["replaced"]+outcomes["absent"] != rotatedVersions-done || outcomes["absent"] > 1 {
		t.Errorf("killed after %d, then %v", done, outcomes)
	}
	if n := lines(t, unwraps); n > rotatedVersions+1 {
		t.Errorf("%d unwraps for %d versions", n, rotatedVersions)
	}
	asked = lines(t, unwraps)
	runRotation(t, rotate())
	if n := lines(t, unwraps); n != asked {
		t.Errorf("%d unwraps for versions that were done", n-asked)
	}

	recorder.mu.Lock()
	for d := range layers {
		if n := recorder.gets[string(d)] + recorder.puts[string(d)]; n != 0 {
			t.Errorf("content layer %s was asked for or sent %d times", d, n)
		}
	}
	for tag, d := range manifests {
		if recorder.puts[tag] != 0 || recorder.puts[string(d)] != 0 {
			t.Errorf("the manifest of %s was written", tag)
		}
	}
	t.Logf("%d bytes were sent for %d versions", recorder.sent, rotatedVersions)
	recorder.mu.Unlock()
	checkRotated(t, dir, repository, policy, manifests)
}

// runRotation counts the outcomes of a rotation that succeeds.
func runRotation(t *testing.T, c *exec.Cmd) map[modelsec.Outcome]int {
	t.Helper()
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, &stderr)
	}
	var result rotateResult
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	counts := make(map[modelsec.Outcome]int)
	for _, v := range result.Versions {
		counts[v.Outcome]++
	}
	return counts
}

// stock publishes versions for the keys in dir, and returns their content
// layers and manifests.
func stock(t *testing.T, dir, repository string) (provenance.Policy, map[digest.Digest]bool, map[string]digest.Digest) {
	t.Helper()
	signer, pub, err := loadSigner(filepath.Join(dir, "signing.key"))
	if err != nil {
		t.Fatal(err)
	}
	recipient, err := loadRecipient(t.Context(), filepath.Join(dir, "identity.pub"))
	if err != nil {
		t.Fatal(err)
	}
	c := &modelsec.Client{Registry: &registry.Client{}}
	store, err := (&registry.Client{}).Open(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	layers, manifests := make(map[digest.Digest]bool), make(map[string]digest.Digest)
	var mu sync.Mutex
	together(rotatedVersions, func(i int) {
		tag := fmt.Sprintf("v%03d", i)
		src := fstest.MapFS{"model.safetensors": {Data: []byte(tag)}, "config.json": {Data: []byte("{}")}}
		d, err := c.Push(t.Context(), repository+":"+tag, src, &modelsec.PushOptions{Signer: signer, Recipients: []encrypt.Recipient{recipient}})
		if err != nil {
			t.Error(err)
			return
		}
		body, err := store.Fetch(t.Context(), d, 0, d.Size)
		if err != nil {
			t.Error(err)
			return
		}
		defer body.Close()
		var m ocispec.Manifest
		if err := json.NewDecoder(body).Decode(&m); err != nil || len(m.Layers) != 3 {
			t.Errorf("%d layers, %v", len(m.Layers), err)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		manifests[tag] = d.Digest
		for _, l := range m.Layers[:2] {
			layers[l.Digest] = true
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return provenance.RequireKey(pub), layers, manifests
}

// together calls f for 0 to n-1, eight at a time.
func together(n int, f func(i int)) {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				f(int(i))
			}
		})
	}
	workers.Wait()
}

// checkRotated opens every fifth version with the new key and with the old.
func checkRotated(t *testing.T, dir, repository string, policy provenance.Policy, manifests map[string]digest.Digest) {
	t.Helper()
	open := func(key, tag string) (digest.Digest, error) {
		ids, err := (&identityFlags{keys: []string{filepath.Join(dir, key)}}).load(t.Context(), &tool{})
		if err != nil {
			return "", err
		}
		m, err := (&modelsec.Client{Registry: &registry.Client{}, Identities: ids}).Open(t.Context(), repository+":"+tag, policy)
		if err != nil {
			return "", err
		}
		defer m.Close()
		return m.Descriptor().Digest, nil
	}
	tags := slices.Sorted(maps.Keys(manifests))
	together(len(tags)/5, func(i int) {
		tag := tags[5*i]
		want := manifests[tag]
		if d, err := open("fresh/identity.key", tag); err != nil || d != want {
			t.Errorf("%s: %s, %v, want %s", tag, d, err, want)
		}
		if _, err := open("identity.key", tag); !isAny(err, modelsec.ErrNoKey) {
			t.Errorf("%s with the old key: %v, want ErrNoKey", tag, err)
		}
	})
}
