// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
)

// TestLoadTakesLittleMemoryAndNoDisk loads an encrypted model that is much
// larger than the bound on what a load may take beside its destination, and
// watches the places where plaintext could get to a disk: open files, the
// directory for temporary files, and the cache, which must hold ciphertext.
func TestLoadTakesLittleMemoryAndNoDisk(t *testing.T) {
	watched := t.TempDir()
	t.Setenv("TMPDIR", watched)
	t.Setenv("HOME", watched)
	layers := 12
	if raceEnabled {
		layers = 1
	}
	s := &sparse{by: newParty(t), profile: index.Encrypted, segmentSize: 1 << 20, files: transformer(2048, 5632, 2048, layers, 1), real: all}
	opener := s.push(t)
	c := s.by.client(opener)
	c.CacheDir = filepath.Join(watched, "cache")
	m := must(c.Open(t.Context(), tagged, s.by.policy()))
	defer m.Close()
	list := tensorsOf(t, m)
	var destination int64
	for _, x := range list {
		destination += x.Size
	}
	before := regularFiles(t)
	var mu sync.Mutex
	probes := make(map[string][]byte)
	sink := modelsec.TensorSink{Alloc: alloc, Done: func(x modelsec.Tensor, b []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if strings.HasPrefix(x.Name, "model.layers.0.") {
			probes[x.Name] = bytes.Clone(b[len(b)/2:][:32])
		}
		for name := range regularFiles(t) {
			if !before[name] && !strings.HasPrefix(name, c.CacheDir) {
				t.Errorf("%s is open while tensors are loaded", name)
			}
		}
		return nil
	}}
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	if err := m.LoadTensors(t.Context(), list, sink); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&end)
	// All that was ever allocated, which is no less than the most that was held.
	if n := int64(end.TotalAlloc-start.TotalAlloc) - destination; n > 256<<20 {
		t.Errorf("%d bytes were allocated beside a destination of %d", n, destination)
	}
	files := 0
	err := filepath.WalkDir(watched, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		for name, probe := range probes {
			if bytes.Contains(b, probe) {
				t.Errorf("%s holds plaintext of %s", path, name)
			}
		}
		return err
	})
	if err != nil || files < layers*80 {
		t.Errorf("%d files were looked at: %v", files, err)
	}
}

// regularFiles lists the files on disks that this process has open.
func regularFiles(t *testing.T) map[string]bool {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, e := range entries {
		path := filepath.Join("/proc/self/fd", e.Name())
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			// It may have been closed since.
			if target, err := os.Readlink(path); err == nil {
				names[target] = true
			}
		}
	}
	return names
}
