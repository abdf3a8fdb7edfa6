// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
)

// transformer lists the shards of a model of the usual shape.
func transformer(hidden, inner, vocabulary int64, layers, shards int) (files []sparseFile) {
	lists := make([][]weights, shards)
	lists[0] = append(lists[0], weights{"model.embed_tokens.weight", []int64{vocabulary, hidden}})
	for i := range layers {
		w := func(name string, shape ...int64) weights {
			return weights{fmt.Sprintf("model.layers.%d.%s.weight", i, name), shape}
		}
		lists[i*shards/layers] = append(lists[i*shards/layers],
			w("self_attn.q_proj", hidden, hidden), w("self_attn.k_proj", hidden/4, hidden), w("self_attn.v_proj", hidden/4, hidden), w("self_attn.o_proj", hidden, hidden),
			w("mlp.gate_proj", inner, hidden), w("mlp.up_proj", inner, hidden), w("mlp.down_proj", hidden, inner), w("input_layernorm", hidden))
	}
	lists[shards-1] = append(lists[shards-1], weights{"lm_head.weight", []int64{vocabulary, hidden}})
	for i, list := range lists {
		files = append(files, tensorFileOf(fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, shards), list...))
	}
	return files
}

// TestRanksShareAModel: eight ranks load a model of 2 GiB in four shards, each
// its share. Together they have all of it, each asks for the segments that its
// slices touch and for each of them once, and Cost says how many bytes.
func TestRanksShareAModel(t *testing.T) {
	const ranks = 8
	s := &sparse{by: newParty(t), profile: index.Plain, segmentSize: 1 << 20, files: transformer(2048, 5632, 57344, 18, 4), real: all}
	if raceEnabled {
		s.segmentSize, s.files = 64<<10, transformer(256, 704, 8192, 8, 4)
	}
	opener := s.push(t)
	covered := make(map[string]int64) // bytes of every tensor, by all ranks
	var whole []modelsec.Tensor
	for rank := range int64(ranks) {
		m := must(s.by.client(opener).Open(t.Context(), tagged, s.by.policy()))
		whole = tensorsOf(t, m)
		var want []modelsec.Tensor
		touched := make(map[string]bool)
		for _, x := range whole {
			part := must(share(x, rank, ranks))
			want = append(want, part)
			for _, row := range rowsOf(x, part) {
				for at := row.offset / s.segmentSize; at <= (row.offset+row.length-1)/s.segmentSize; at++ {
					touched[fmt.Sprint(x.File, at*s.segmentSize)] = true
				}
			}
		}
		requests, size, err := m.Cost(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		s.take()
		err = m.LoadTensors(t.Context(), want, modelsec.TensorSink{Alloc: alloc, Done: func(x modelsec.Tensor, b []byte) error {
			i := slices.IndexFunc(whole, func(y modelsec.Tensor) bool { return y.Name == x.Name })
			return holdsRows(b, rowsOf(whole[i], x))
		}})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range want {
			covered[x.Name] += x.Size
		}
		fetched := make(map[string]bool)
		asked := s.take()
		for _, a := range asked {
			size -= a.n
			for _, at := range a.segments(t) {
				name := fmt.Sprint(s.files[a.layer.file].path, at)
				if fetched[name] {
					t.Errorf("rank %d: the segment %s was fetched twice", rank, name)
				}
				fetched[name] = true
			}
		}
		if len(asked) != requests || size != 0 {
			t.Errorf("rank %d: %d requests, Cost said %d; %d bytes fewer than it said", rank, len(asked), requests, size)
		}
		if !maps.Equal(fetched, touched) {
			t.Errorf("rank %d: %d segments were fetched, its slices touch %d", rank, len(fetched), len(touched))
		}
		m.Close()
	}
	for _, x := range whole {
		if want := x.Size; covered[x.Name] != want && covered[x.Name] != ranks*want || len(x.Shape) == 2 && covered[x.Name] != want {
			t.Errorf("the ranks have %d bytes of %s, which has %d", covered[x.Name], x.Name, want)
		}
	}
}

func all(int, int64) bool { return true }

// row is a stretch of a file.
type row struct{ offset, length int64 }

// rowsOf lists where the rows of a part of a matrix of BF16 lie, counted anew
// from how share cuts.
func rowsOf(whole, part modelsec.Tensor) (rows []row) {
	if len(whole.Shape) != 2 || part.Shape[1] == whole.Shape[1] {
		return []row{{part.Offset, part.Size}}
	}
	for i := range whole.Shape[0] {
		rows = append(rows, row{part.Offset + i*whole.Shape[1]*2, part.Shape[1] * 2})
	}
	return rows
}

// holdsRows compares memory with the pattern at the rows of its file.
func holdsRows(b []byte, rows []row) error {
	for _, r := range rows {
		want := make([]byte, r.length)
		pattern(want, r.offset)
		if !bytes.Equal(b[:r.length], want) {
			return fmt.Errorf("the row at %d differs", r.offset)
		}
		b = b[r.length:]
	}
	return nil
}

// TestOverReadIsDocumented computes the table of docs/LOADING.md: what one of
// eight ranks fetches for each byte that it wants, of a model of the shape of
// Llama 3 8B.
func TestOverReadIsDocumented(t *testing.T) {
	p := newParty(t)
	files := transformer(4096, 14336, 128256, 32, 4)
	starts := func(_ int, offset int64) bool { return offset == 0 }
	s := &sparse{by: p, profile: index.Plain, segmentSize: 1 << 20, files: files, real: starts}
	m := must(p.client(s.push(t)).Open(t.Context(), tagged, p.policy()))
	defer m.Close()
	list := tensorsOf(t, m)
	share8 := func(x modelsec.Tensor) (modelsec.Tensor, bool) { return must(share(x, 3, 8)), true }
	named := func(name string) func(x modelsec.Tensor) (modelsec.Tensor, bool) {
		return func(x modelsec.Tensor) (modelsec.Tensor, bool) {
			return must(share(x, 3, 8)), strings.Contains(x.Name, name)
		}
	}
	doc := must(os.ReadFile("../docs/LOADING.md"))
	for _, l := range []struct {
		name string
		part func(x modelsec.Tensor) (modelsec.Tensor, bool)
	}{
		{"all of the model", func(x modelsec.Tensor) (modelsec.Tensor, bool) { return x, true }},
		{"pipeline: every eighth part of the layers", func(x modelsec.Tensor) (modelsec.Tensor, bool) {
			var layer int
			n, _ := fmt.Sscanf(x.Name, "model.layers.%d.", &layer)
			return x, n == 1 && layer/4 == 3
		}},
		{"embedding, by rows", named("embed_tokens")},
		{"q_proj, by rows", named("q_proj")},
		{"k_proj, by rows", named("k_proj")},
		{"gate_proj, by rows", named("gate_proj")},
		{"o_proj, by columns", named("o_proj")},
		{"down_proj, by columns", named("down_proj")},
		{"norms, whole", named("layernorm")},
		{"tensor parallel: all of the above but the first two", share8},
	} {
		var want []modelsec.Tensor
		var size int64
		for _, x := range list {
			if part, ok := l.part(x); ok {
				want, size = append(want, part), size+part.Size
			}
		}
		requests, cost, err := m.Cost(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("| %s | %.1f MiB | %.1f MiB | %.2f | %d |", l.name, float64(size)/(1<<20), float64(cost)/(1<<20), float64(cost)/float64(size), requests)
		if !bytes.Contains(doc, []byte(line)) {
			t.Errorf("docs/LOADING.md lacks the line\n%s", line)
		}
	}
}
