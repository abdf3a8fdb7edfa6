// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry"
)

func testContext(t *testing.T, s registry.WriteStore) {
	blob := push(t, s, content(10))
	b := manifest(t, s, "", "", nil)
	m := pushManifest(t, s, b)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, f := range map[string]func() error{
		"Resolve":      func() error { _, err := s.Resolve(ctx, m.Digest.String()); return err },
		"Fetch":        func() error { _, err := s.Fetch(ctx, blob, 0, blob.Size); return err },
		"Has":          func() error { _, err := s.Has(ctx, describe([]byte("absent"))); return err },
		"Create":       func() error { _, err := s.Create(ctx, 1); return err },
		"PushManifest": func() error { _, err := s.PushManifest(ctx, ocispec.MediaTypeImageManifest, b); return err },
		"Tag":          func() error { return s.Tag(ctx, m, "v1") },
		"Delete":       func() error { return s.Delete(ctx, m) },
		"Referrers": func() (last error) {
			for _, last = range s.Referrers(ctx, m, "") {
			}
			return last
		},
		"Tags": func() (last error) {
			for _, last = range s.Tags(ctx) {
			}
			return last
		},
	} {
		wantError(t, name+" with an ended context", f(), context.Canceled)
	}
}

func testContextMidway(t *testing.T, s registry.WriteStore) {
	d := push(t, s, content(2<<20))
	ctx, cancel := context.WithCancel(t.Context())
	body, err := s.Fetch(ctx, d, 0, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadFull(body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	w, err := s.Create(ctx, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write(content(1000)); err != nil {
		t.Fatal(err)
	}
	cancel()
	_, err = io.Copy(io.Discard, body)
	wantError(t, "Read", err, context.Canceled)
	// A Write that is under way may end well; the blob may not.
	for range 100 {
		if _, err = w.Write(content(100_000)); err != nil {
			break
		}
	}
	wantError(t, "Write", err, context.Canceled)
	if err := w.Commit(t.Context(), d.Digest); err == nil {
		t.Error("Commit after the context of Create had ended succeeded")
	}
}

// testLeaks uses readers and writers in the ways that leak most easily, and
// compares what a few rounds leave behind with what many do. Connections kept
// for reuse are allowed for.
func testLeaks(t *testing.T, s registry.WriteStore) {
	d := push(t, s, content(1<<20))
	round := func() {
		body, err := s.Fetch(t.Context(), d, 1000, 500_000)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := body.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		body.Close()
		w, err := s.Create(t.Context(), -1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content(100_000)); err != nil {
			t.Fatal(err)
		}
		w.Close()
		for range s.Tags(t.Context()) {
			break
		}
		fetch(t, s, d, 0, d.Size)
		ctx, cancel := context.WithCancel(t.Context())
		if body, err := s.Fetch(ctx, d, 0, d.Size); err == nil {
			cancel()
			body.Close()
		}
		cancel()
	}
	const slack = 12
	for range 4 {
		round()
	}
	goroutines, descriptors := runtime.NumGoroutine(), openFiles()
	for range 40 {
		round()
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		g, f := runtime.NumGoroutine(), openFiles()
		if g <= goroutines+slack && f <= descriptors+slack {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("goroutines grew from %d to %d, open files from %d to %d", goroutines, g, descriptors, f)
		}
	}
}

// openFiles counts descriptors where the system shows them.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
