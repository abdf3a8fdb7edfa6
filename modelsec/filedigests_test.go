// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestFileDigestsAreThoseOfEveryFile, be it a layer or one of many in an
// archive, without a second reading of any.
func TestFileDigestsAreThoseOfEveryFile(t *testing.T) {
	many := map[string]int{"model.safetensors": 2*segment + 7, "empty.txt": 0}
	for i := range 310 {
		many[fmt.Sprintf("tokenizer/%03d.json", i)] = 500 + i
	}
	many["tokenizer/none.json"] = 0
	for name, sizes := range map[string]map[string]int{"whole": {"model.safetensors": 3 * segment, "config.json": 9, "empty.txt": 0}, "packed": many} {
		src := source(sizes)
		want := make(map[string]digest.Digest)
		for path, f := range src {
			want[path] = digestOf(f.Data)
		}
		var got []map[string]digest.Digest
		o := &modelsec.PushOptions{Journal: filepath.Join(t.TempDir(), "journal"), FileDigests: func(_ context.Context, files map[string]digest.Digest) error {
			got = append(got, files)
			return nil
		}}
		counting := &countingFS{FS: src, read: make(map[string]int64)}
		push(t, &modelsec.Client{Registry: registry.NewMemory()}, tagged, counting, o)
		if len(got) != 1 || !maps.Equal(got[0], want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
		for path, f := range src {
			if n := counting.read[path]; n != int64(len(f.Data)) {
				t.Errorf("%s: %s: %d bytes were read of %d", name, path, n, len(f.Data))
			}
		}
	}
}

func TestFileDigestsEndThePush(t *testing.T) {
	memory, late := registry.NewMemory(), errors.New("no signature today")
	c := &modelsec.Client{Registry: memory}
	_, err := c.Push(t.Context(), tagged, small(), &modelsec.PushOptions{FileDigests: func(context.Context, map[string]digest.Digest) error { return late }})
	if !errors.Is(err, late) {
		t.Errorf("got %v, want the error of the function", err)
	}
	if _, err := c.Inspect(t.Context(), tagged); err == nil {
		t.Error("the tag is there all the same")
	}
}
