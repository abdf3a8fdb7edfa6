// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// story prints the steps as they happen.
type story struct {
	size  int64
	steps int
	total time.Duration
}

// step runs one step and prints its name, time and result.
func (s *story) step(name string, run func() (string, error)) error {
	s.steps++
	fmt.Printf("%d. %-46s", s.steps, name)
	start := time.Now()
	result, err := run()
	took := time.Since(start)
	s.total += took
	if err != nil {
		fmt.Println("failed")
		return err
	}
	fmt.Printf("%8s\n   %s\n", took.Round(100*time.Microsecond), result)
	return nil
}

func (s *story) end() {
	fmt.Printf(`
Done in %s. What just happened:
  - the weights were encrypted before they left the process, and the registry
    never saw a name, a role or a byte of them;
  - the policy was decided on one digest before a single weight was fetched;
  - one bad bit was found in its own segment, named, and nothing was written;
  - the pull checked every segment by itself, in parallel, before using it.

Next: go -C examples/modelsec run . (the CLI), docs/POLICY.md, docs/FORMAT.md.
`, s.total.Round(time.Millisecond))
}

// writeModel makes a directory that looks like a model: a safetensors file of
// random weights, a config and a tokenizer.
func writeModel(dir string) (int64, error) {
	const rows, columns = 2048, 1536
	weights := make([]byte, rows*columns*2)
	rand.Read(weights)
	header, err := json.Marshal(map[string]any{
		"model.embed_tokens.weight": map[string]any{"dtype": "BF16", "shape": []int{rows, columns}, "data_offsets": []int{0, len(weights)}},
	})
	if err != nil {
		return 0, err
	}
	safetensors := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	files := map[string][]byte{
		"model.safetensors":        append(append(safetensors, header...), weights...),
		"config.json":              []byte(`{"architectures": ["LlamaForCausalLM"], "hidden_size": 1536}` + "\n"),
		"tokenizer/tokenizer.json": []byte(`{"version": "1.0"}` + "\n"),
		"README.md":                []byte("# tiny-llama\n"),
	}
	var size int64
	for name, b := range files {
		size += int64(len(b))
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return 0, err
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			return 0, err
		}
	}
	return size, nil
}

// compare demands that both directories hold the same files.
func compare(a, b string) error {
	count := func(dir string) (n int) {
		filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { n++; return nil })
		return n
	}
	if count(a) != count(b) {
		return fmt.Errorf("%d entries were pulled, %d were pushed", count(b), count(a))
	}
	return filepath.WalkDir(a, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(b, strings.TrimPrefix(name, a)))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s differs", name)
		}
		return err
	})
}

// isBlob reports requests for a blob. Of all of them only the weights are long
// enough to have the bit that the registry flips.
func isBlob(r *http.Request) bool {
	return path.Base(path.Dir(r.URL.Path)) == "blobs"
}

func mib(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
