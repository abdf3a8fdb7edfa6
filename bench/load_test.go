// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/modelsec"
)

// loadSize is a shard as models have them: 2 GiB in tensors of 16 MiB.
const (
	loadSize   = 2 << 30
	tensorSize = 16 << 20
)

// shard is a safetensors file of loadSize bytes of data.
func shard() []byte {
	var entries []string
	for at := 0; at < loadSize; at += tensorSize {
		entries = append(entries, fmt.Sprintf(`"layer.%d":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, at/tensorSize, tensorSize, at, at+tensorSize))
	}
	header := "{" + strings.Join(entries, ",") + "}"
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 8+len(header)+loadSize), uint64(len(header)))
	b = append(b, header...)
	return append(b, random(loadSize)...)
}

// BenchmarkLoadTensors loads 2 GiB of encrypted tensors into memory, and
// extracts the same files to a file system in memory in turn with it, so that
// both meet the same machine. It reports the time of either and what loading
// takes for each second of extracting.
func BenchmarkLoadTensors(b *testing.B) {
	t := newBed(b, true)
	t.source["model.safetensors"].Data = shard()
	ctx := context.Background()
	if _, err := t.client.Push(ctx, t.ref, t.source, &t.options); err != nil {
		b.Fatal(err)
	}
	t.source = nil
	m, err := t.client.Open(ctx, t.ref, t.policy)
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	// Memory is touched before, as an arena is that a server reuses.
	arena := make([]byte, loadSize)
	for i := 0; i < len(arena); i += 4096 {
		arena[i] = 1
	}
	dir := filepath.Join(memory(b), "model")
	var extract, load time.Duration
	b.SetBytes(2 * loadSize)
	for b.Loop() {
		start := time.Now()
		if err := m.Extract(ctx, dir, nil); err != nil {
			b.Fatal(err)
		}
		extract += time.Since(start)
		b.StopTimer()
		if err := os.RemoveAll(dir); err != nil {
			b.Fatal(err)
		}
		left := arena
		b.StartTimer()
		start = time.Now()
		err := m.LoadTensors(ctx, nil, modelsec.TensorSink{Alloc: func(x modelsec.Tensor) ([]byte, error) {
			out := left[:x.Size:x.Size]
			left = left[x.Size:]
			return out, nil
		}})
		if err != nil {
			b.Fatal(err)
		}
		load += time.Since(start)
	}
	b.ReportMetric(extract.Seconds()/float64(b.N), "extract-s")
	b.ReportMetric(load.Seconds()/float64(b.N), "load-s")
	b.ReportMetric(load.Seconds()/extract.Seconds(), "load/extract")
}
