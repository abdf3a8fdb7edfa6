// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/tensor/tensortest"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// weights is a tensor of a file that a test makes, of bytes.
type weights struct {
	name  string
	shape []int64
}

func (w weights) size() int {
	n := 1
	for _, d := range w.shape {
		n *= int(d)
	}
	return n
}

// tensorFile makes a safetensors file of U8 tensors.
func tensorFile(seed uint64, list ...weights) []byte {
	var entries []string
	at := 0
	for _, w := range list {
		shape := strings.Trim(strings.ReplaceAll(fmt.Sprint(w.shape), " ", ","), "[]")
		entries = append(entries, tensortest.Entry(w.name, "U8", shape, at, at+w.size()))
		at += w.size()
	}
	b := tensortest.Safetensors("{"+strings.Join(entries, ",")+"}", 0)
	return append(b, noise(seed, at)...)
}

// model makes a source of files.
func model(files map[string][]byte) fstest.MapFS {
	src := make(fstest.MapFS)
	for name, b := range files {
		src[name] = &fstest.MapFile{Data: b, ModTime: now}
	}
	return src
}

// tensorModel has tensors of all kinds of places: several in one segment, one
// over many, one without bytes, files of two formats.
func tensorModel() fstest.MapFS {
	quantised := tensortest.GGUFCases()[0].File
	return model(map[string][]byte{
		"model.safetensors": tensorFile(1, weights{"embed", []int64{100, 1000}}, weights{"empty", []int64{0, 5}}, weights{"a", []int64{10}}, weights{"b", []int64{10}},
			weights{"experts", []int64{4, 30, 2000}}, weights{"head", []int64{300, 700}}),
		"vae/model.safetensors": tensorFile(2, weights{"a", []int64{7}}),
		"model-q8.gguf":         quantised,
		"config.json":           []byte("{}"),
	})
}

// bytesOf is what a file has of a tensor that is not a slice.
func bytesOf(src fstest.MapFS, t modelsec.Tensor) []byte {
	return src[t.File].Data[t.Offset : t.Offset+t.Size]
}

func tensorsOf(t testing.TB, m *modelsec.Model) []modelsec.Tensor {
	t.Helper()
	list, err := m.Tensors(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func tensorNamed(t testing.TB, m *modelsec.Model, name string) modelsec.Tensor {
	t.Helper()
	list := tensorsOf(t, m)
	i := slices.IndexFunc(list, func(t modelsec.Tensor) bool { return t.Name == name })
	if i < 0 {
		t.Fatalf("no tensor %q", name)
	}
	return list[i]
}

func TestTensorsAreThoseOfTheHeaders(t *testing.T) {
	opened(t, tensorModel(), nil, func(t *testing.T, m *modelsec.Model) {
		var got []string
		for _, x := range tensorsOf(t, m) {
			got = append(got, fmt.Sprintf("%s %s %s %d %d", x.File, x.Name, x.DType, x.Shape, x.Size))
			x.Shape[0] = -1 // the caller's to change
		}
		want := []string{
			"model-q8.gguf token_embd.weight F32 [2 3] 24",
			"model-q8.gguf blk.0.attn_q.weight F16 [2 8] 32",
			"model-q8.gguf output.weight Q8_0 [1 32] 34",
			"model.safetensors embed U8 [100 1000] 100000",
			"model.safetensors empty U8 [0 5] 0",
			"model.safetensors a U8 [10] 10",
			"model.safetensors b U8 [10] 10",
			"model.safetensors experts U8 [4 30 2000] 240000",
			"model.safetensors head U8 [300 700] 210000",
			"vae/model.safetensors a U8 [7] 7",
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
		if x := tensorNamed(t, m, "head"); x.Shape[0] != 300 {
			t.Error("a caller changed the list")
		}
	})
}

// TestTensorsRefusesMalformedFiles also demands that a refusal gives its memory
// back and names the file.
func TestTensorsRefusesMalformedFiles(t *testing.T) {
	good := tensorFile(1, weights{"a", []int64{10}})
	for name, files := range map[string]map[string][]byte{
		"safetensors": {"model.safetensors": good[:len(good)-1]},
		"gguf":        {"model.gguf": tensortest.GGUFCases()[0].File[:40]},
		"one of many": {"a.safetensors": good, "b.safetensors": good, "c.safetensors": append(slices.Clone(good), 0), "d.safetensors": good},
		"empty":       {"model.safetensors": nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParty(t)
			memory := registry.NewMemory()
			c := p.client(memory)
			push(t, c, tagged, model(files), p.options(p.recipients()))
			m := must(c.Open(t.Context(), tagged, p.policy()))
			before, _ := c.Held()
			for range 2 {
				_, err := m.Tensors(t.Context())
				refused(t, err, modelsec.ErrFormat)
				contains(t, err, "file \"", "tensor file format")
			}
			if err := m.LoadTensors(t.Context(), nil, modelsec.TensorSink{Alloc: alloc}); err == nil {
				t.Error("tensors of a malformed file were loaded")
			}
			// Segments of the files stay in the cache.
			if held, lent := c.Held(); held > before+16*segment || lent != 0 {
				t.Errorf("%d and %d bytes are in use, %d were before", held, lent, before)
			}
			m.Close()
			if held, lent := c.Held(); held != 0 || lent != 0 {
				t.Errorf("%d and %d bytes are still in use", held, lent)
			}
		})
	}
}

// TestTensorListIsWithinTheMemoryLimit: a header of many tensors is refused by
// a client that has no room for it.
func TestTensorListIsWithinTheMemoryLimit(t *testing.T) {
	var list []weights
	for i := range 5000 {
		list = append(list, weights{fmt.Sprintf("layer.%d.weight", i), []int64{1}})
	}
	change := func(c *modelsec.Client, _ *modelsec.PushOptions) { c.MemoryLimit = 2 << 20 }
	opened(t, model(map[string][]byte{"model.safetensors": tensorFile(1, list...)}), change, func(t *testing.T, m *modelsec.Model) {
		_, err := m.Tensors(t.Context())
		refused(t, err, modelsec.ErrLimit)
	})
}

// TestShardIndexMustAgreeWithHeaders is row 63 of the faults.
func TestShardIndexMustAgreeWithHeaders(t *testing.T) {
	one, two := "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	files := func(index string) map[string][]byte {
		return map[string][]byte{
			one: tensorFile(1, weights{"a", []int64{3}}, weights{"b", []int64{4}}), two: tensorFile(2, weights{"c", []int64{5}}),
			"model.safetensors.index.json": []byte(index),
		}
	}
	right := `{"metadata":{"total_size":12},"weight_map":{"a":"` + one + `","b":"` + one + `","c":"` + two + `"}}`
	for name, c := range map[string]struct {
		index string
		add   map[string][]byte
		want  string // of the error; empty: none
	}{
		"right":                   {index: right},
		"beside others":           {index: right, add: map[string][]byte{"consolidated.safetensors": tensorFile(3, weights{"a", []int64{2}})}},
		"in another directory":    {index: right, add: map[string][]byte{"x/model-00003-of-00003.safetensors": tensorFile(3, weights{"a", []int64{2}})}},
		"tensor in another file":  {index: strings.Replace(right, `"b":"`+one, `"b":"`+two, 1), want: "does not list it"},
		"missing shard":           {index: strings.Replace(right, two, "model-00003-of-00002.safetensors", 1), want: "does not have"},
		"extra shard":             {index: right, add: map[string][]byte{"model-00003-of-00002.safetensors": tensorFile(3, weights{"d", []int64{2}})}, want: "not in the index"},
		"extra shard, no tensors": {index: right, add: map[string][]byte{"model-00003-of-00002.safetensors": tensorFile(3)}, want: "not in the index"},
		"unknown tensor":          {index: strings.Replace(right, `"c"`, `"d"`, 1), want: "does not list it"},
		"tensor left out":         {index: strings.Replace(right, `"b":"`+one+`",`, "", 1), want: `"b" of`},
		"tensor twice":            {index: strings.Replace(right, `"a":"`+one+`"`, `"a":"`+one+`","a":"`+one+`"`, 1), want: "twice"},
		"file above":              {index: strings.Replace(right, two, "../"+two, 1), want: "no safetensors file"},
		"path that is not clean":  {index: strings.Replace(right, two, "./"+two, 1), want: "no safetensors file"},
		"file of another kind":    {index: strings.Replace(right, two, "model.safetensors.index.json", 1), want: "no safetensors file"},
		"not JSON":                {index: right[:20], want: "byte"},
		"no map":                  {index: "{}", want: "weight_map"},
	} {
		t.Run(name, func(t *testing.T) {
			all := files(c.index)
			for name, b := range c.add {
				all[name] = b
			}
			p := newParty(t)
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, model(all), p.options(nil))
			m := must(p.client(memory).Open(t.Context(), tagged, p.policy()))
			defer m.Close()
			list, err := m.Tensors(t.Context())
			if c.want == "" {
				if err != nil || len(list) < 3 {
					t.Errorf("got %v, %v", list, err)
				}
				return
			}
			refused(t, err, modelsec.ErrFormat)
			contains(t, err, `"model.safetensors.index.json"`, c.want)
		})
	}
}

// TestOpenedShardsAreComparedWithTheIndex: who opens one shard and the index is
// told where the index is wrong about that shard, and no more.
func TestOpenedShardsAreComparedWithTheIndex(t *testing.T) {
	one, two := "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	p := newParty(t)
	for name, want := range map[string]error{"c": nil, "b": modelsec.ErrFormat} {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, model(map[string][]byte{
				one: tensorFile(1, weights{"a", []int64{3}}, weights{"b", []int64{4}}), two: tensorFile(2, weights{"c", []int64{5}}),
				"model.safetensors.index.json": []byte(`{"weight_map":{"a":"` + one + `","` + name + `":"` + two + `"` + map[string]string{"c": `,"b":"` + one + `"`}[name] + `}}`),
			}), p.options(nil))
			m, err := p.client(memory).OpenFiles(t.Context(), tagged, p.policy(), one, "model.safetensors.index.json")
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			list, err := m.Tensors(t.Context())
			if want != nil {
				refused(t, err, want)
			} else if err != nil || len(list) != 2 {
				t.Errorf("got %v, %v", list, err)
			}
		})
	}
}

func TestSlicesOfTensors(t *testing.T) {
	opened(t, tensorModel(), nil, func(t *testing.T, m *modelsec.Model) {
		experts := tensorNamed(t, m, "experts")
		second := must(experts.Slice(0, 1, 2))
		if second.Offset != experts.Offset+60000 || second.Size != 60000 || !slices.Equal(second.Shape, []int64{1, 30, 2000}) || second.Name != "experts" {
			t.Errorf("got %+v", second)
		}
		columns := must(must(experts.Slice(0, 1, 2)).Slice(2, 500, 1500))
		if columns.Offset != experts.Offset+60500 || columns.Size != 30000 || !slices.Equal(columns.Shape, []int64{1, 30, 1000}) {
			t.Errorf("got %+v", columns)
		}
		if !slices.Equal(experts.Shape, []int64{4, 30, 2000}) {
			t.Error("a slice changed its tensor")
		}
		for _, bad := range []struct {
			dim      int
			from, to int64
		}{{-1, 0, 1}, {3, 0, 1}, {0, -1, 1}, {0, 2, 1}, {0, 0, 5}} {
			_, err := experts.Slice(bad.dim, bad.from, bad.to)
			refused(t, err, modelsec.ErrConfig)
		}
		quantised := tensorNamed(t, m, "output.weight")
		_, err := quantised.Slice(1, 0, 16)
		refused(t, err, modelsec.ErrConfig)
		_, err = modelsec.Tensor{Name: "x", File: "model.safetensors", Shape: []int64{4}, Size: 4}.Slice(0, 0, 1)
		refused(t, err, modelsec.ErrConfig)
	})
}

// TestTensorsReadsHeadersOnly: whatever the size of the files.
func TestTensorsReadsHeadersOnly(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := model(map[string][]byte{
		"a.safetensors": tensorFile(1, weights{"x", []int64{20 * segment}}),
		"b.safetensors": tensorFile(2, weights{"x", []int64{20 * segment}}),
	})
	push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	counting := &evil{Opener: memory}
	m := must(p.client(counting).Open(t.Context(), tagged, p.policy()))
	defer m.Close()
	for range 2 {
		if list := tensorsOf(t, m); len(list) != 2 {
			t.Errorf("got %v", list)
		}
		if n := counting.fetched.Load(); n != 2*(segment+encrypt.SegmentOverhead) {
			t.Errorf("%d bytes were fetched for two headers", n)
		}
	}
}

// TestLongHeadersAreReadAhead: a header of many segments takes few requests.
func TestLongHeadersAreReadAhead(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	metadata := strings.Repeat("x", 24*segment)
	b := tensortest.Safetensors(`{"__metadata__":{"notes":"`+metadata+`"}}`, 0)
	push(t, p.client(memory), tagged, model(map[string][]byte{"model.safetensors": b}), p.options(nil))
	var requests atomic.Int64
	counting := &evil{Opener: memory}
	m := must(p.client(counting).Open(t.Context(), tagged, p.policy()))
	defer m.Close()
	counting.before = func(_ context.Context, op, _ string) error {
		if op == "fetch" {
			requests.Add(1)
		}
		return nil
	}
	tensorsOf(t, m)
	if n := requests.Load(); n > 8 {
		t.Errorf("%d requests for a header of 25 segments", n)
	}
}
