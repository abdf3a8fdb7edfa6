// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	interruptModel = 24 << 20
	interruptAfter = 10 << 20 // content bytes that arrive before the line stalls
)

// stallingProxy passes content on until it has passed limit bytes of blobs;
// then the line is dead, without being closed, as lines are.
type stallingProxy struct {
	limit   atomic.Int64 // 0: none
	passed  atomic.Int64
	stalled chan struct{}
}

func newStallingProxy(t *testing.T, registry string) (*stallingProxy, string) {
	p := &stallingProxy{stalled: make(chan struct{}, 100)}
	forward := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: registry})
	forward.FlushInterval = -1
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodGet && strings.Contains(req.URL.Path, "/blobs/") {
			w = &meteredWriter{ResponseWriter: w, proxy: p, gone: req.Context().Done()}
		}
		forward.ServeHTTP(w, req)
	}))
	t.Cleanup(s.Close)
	return p, strings.TrimPrefix(s.URL, "http://")
}

type meteredWriter struct {
	http.ResponseWriter
	proxy *stallingProxy
	gone  <-chan struct{}
}

func (w *meteredWriter) Write(b []byte) (int, error) {
	passed := w.proxy.passed.Add(int64(len(b)))
	if limit := w.proxy.limit.Load(); limit > 0 && passed > limit {
		w.proxy.stalled <- struct{}{}
		<-w.gone
		return 0, http.ErrAbortHandler
	}
	return w.ResponseWriter.Write(b)
}

func (w *meteredWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// modelsecCommand is the command as a process, away from the user's files.
func modelsecCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath("modelsec") // put there by testscript.Main
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path, args...)
	c.Dir = dir
	c.Env = append(os.Environ(), "HOME="+dir, "DOCKER_CONFIG="+dir, "MODELSEC_POLICY=")
	return c
}

func succeed(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", c, err, out)
	}
}

func TestInterruptedPullLeavesNothingAndResumes(t *testing.T) {
	registry := startRegistry(t, true)
	proxy, address := newStallingProxy(t, registry)
	dir := t.TempDir()
	model := make([]byte, interruptModel)
	rand.Read(model)
	if err := os.MkdirAll(filepath.Join(dir, "model"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model", "model.safetensors"), model, 0o644); err != nil {
		t.Fatal(err)
	}
	succeed(t, modelsecCommand(t, dir, "keygen"))
	ref := address + "/team/model:v1"
	succeed(t, modelsecCommand(t, dir, "push", "model", ref, "--sign-key", "signing.key", "--recipient", "identity.pub"))

	pull := []string{"pull", ref, "out", "--key", "signing.pub", "--identity", "identity.key"}
	proxy.limit.Store(interruptAfter)
	c := modelsecCommand(t, dir, pull...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-proxy.stalled:
	case <-time.After(time.Minute):
		c.Process.Kill()
		t.Fatal("the pull did not get that far")
	}
	// What has arrived is verified and written while the line is dead.
	time.Sleep(500 * time.Millisecond)
	if err := c.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if got := c.ProcessState.ExitCode(); got != statusInterrupted {
		t.Errorf("status %d, want %d\n%s", got, statusInterrupted, &stderr)
	}
	for _, want := range []string{"modelsec: interrupted: pull " + ref, "hint: the same command goes on"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("standard error lacks %q:\n%s", want, &stderr)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "out")); !os.IsNotExist(err) {
		t.Errorf("out is there after the interruption (%v)", err)
	}

	proxy.limit.Store(0)
	proxy.passed.Store(0)
	succeed(t, modelsecCommand(t, dir, pull...))
	got, err := os.ReadFile(filepath.Join(dir, "out", "model.safetensors"))
	if err != nil || !bytes.Equal(got, model) {
		t.Errorf("the model differs after the resumption (%v)", err)
	}
	if n := proxy.passed.Load(); n > interruptModel-interruptAfter/4 {
		t.Errorf("the second pull fetched %d bytes of %d: nothing was resumed", n, interruptModel)
	}
}
