// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package safetensors_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/modelsec/modelsec-go/internal/safetensors"
	"github.com/modelsec/modelsec-go/internal/tensor"
	"github.com/modelsec/modelsec-go/internal/tensor/tensortest"
)

// maxMemory is what no file, however made, may cost.
const maxMemory = 64 << 20

var errMemory = errors.New("out of memory")

// within reserves up to a limit.
func within(limit int64) tensor.Reserve {
	return func(n int64) error {
		if limit -= n; limit < 0 {
			return errMemory
		}
		return nil
	}
}

func read(b []byte) ([]tensor.Info, error) {
	return safetensors.Read(bytes.NewReader(b), int64(len(b)), within(maxMemory/2))
}

// allocated returns what f allocates in all, which is no less than it holds at
// any time.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestReadTakesWhatFollowsTheRules(t *testing.T) {
	for _, c := range tensortest.SafetensorsCases() {
		t.Run(c.Name, func(t *testing.T) {
			var list []tensor.Info
			var err error
			if n := allocated(func() { list, err = read(c.File) }); n > maxMemory {
				t.Errorf("%d bytes were allocated", n)
			}
			switch {
			case c.Valid && err != nil:
				t.Errorf("refused: %v", err)
			case c.Valid:
				holds(t, list, c.File)
			case !errors.Is(err, tensor.ErrFormat) || list != nil:
				t.Errorf("got %v, %v, want ErrFormat", list, err)
			}
		})
	}
}

// holds demands that the tensors fill the file from the end of its header on.
func holds(t *testing.T, list []tensor.Info, file []byte) {
	t.Helper()
	end := int64(len(file))
	for _, i := range slices.Backward(list) {
		size, err := i.Block.Size(i.Shape)
		if err != nil || i.Size != size || i.Offset+i.Size != end {
			t.Errorf("tensor %q of %s %d has %d bytes at %d of %d", i.Name, i.DType, i.Shape, i.Size, i.Offset, end)
		}
		end = i.Offset
	}
	if end < 10 {
		t.Errorf("tensors begin at %d", end)
	}
}

func TestReadReturnsTensorsInOrder(t *testing.T) {
	header := "{" + tensortest.Entry("z", "U8", "3", 4, 7) + "," + tensortest.Entry("y", "F16", "2,1", 0, 4) + "}"
	list, err := read(tensortest.Safetensors(header, 7))
	if err != nil || len(list) != 2 {
		t.Fatalf("got %v, %v", list, err)
	}
	start := int64(8 + len(header))
	if y := list[0]; y.Name != "y" || y.DType != "F16" || !slices.Equal(y.Shape, []int64{2, 1}) || y.Offset != start || y.Size != 4 {
		t.Errorf("got %+v", y)
	}
	if z := list[1]; z.Name != "z" || z.Offset != start+4 || z.Size != 3 {
		t.Errorf("got %+v", z)
	}
}

// endless is a file whose header repeats a pattern for 100 MB.
type endless struct{ head, pattern string }

func (e endless) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(e.head)) {
		n = copy(p, e.head[off:])
	}
	for at := (off + int64(n) - int64(len(e.head))) % int64(len(e.pattern)); n < len(p); at = 0 {
		n += copy(p[n:], e.pattern[at:])
	}
	return len(p), nil
}

// TestLongestHeadersStayInMemory: headers as long as the format allows, made of
// what costs most to keep.
func TestLongestHeadersStayInMemory(t *testing.T) {
	length := "\x00\xe1\xf5\x05\x00\x00\x00\x00" // 100,000,000
	long := func(s string) string { return strings.Repeat(s, 4096) }
	for name, e := range map[string]endless{
		"one name":       {length + `{"`, long("n")},
		"one value":      {length + `{"__metadata__":{"a":"`, long(`v\u0061é`)},
		"braces":         {length + `{"a":`, long("{")},
		"one shape":      {length + `{"a":{"shape":[`, long("1,")},
		"one number":     {length + `{"a":{"shape":[`, long("1")},
		"repeated entry": {length + `{`, `"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},`},
	} {
		t.Run(name, func(t *testing.T) {
			var err error
			n := allocated(func() { _, err = safetensors.Read(e, 1<<40, within(maxMemory/2)) })
			if !errors.Is(err, tensor.ErrFormat) || n > maxMemory {
				t.Errorf("got %v after %d bytes", err, n)
			}
		})
	}
}

// TestReadReservesWhatItKeeps: names are distinct, so only the reserve ends it.
func TestReadReservesWhatItKeeps(t *testing.T) {
	for name, item := range map[string]string{
		"tensors":  `"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`,
		"metadata": `"%d":"v"`,
	} {
		t.Run(name, func(t *testing.T) {
			var items []string
			for i := range 200_000 {
				items = append(items, fmt.Sprintf(item, i))
			}
			header := "{" + strings.Join(items, ",") + "}"
			if name == "metadata" {
				header = `{"__metadata__":` + header + "}"
			}
			b := tensortest.Safetensors(header, 0)
			var err error
			n := allocated(func() { _, err = safetensors.Read(bytes.NewReader(b), int64(len(b)), within(16<<20)) })
			if !errors.Is(err, errMemory) || n > maxMemory {
				t.Errorf("got %v after %d bytes", err, n)
			}
		})
	}
}

// TestFailedReadsAreNotFormatErrors: a line that breaks says nothing about the
// file.
func TestFailedReadsAreNotFormatErrors(t *testing.T) {
	b := tensortest.Safetensors("{"+tensortest.Entry("a", "U8", "1", 0, 1)+"}", 1)
	broken := errors.New("broken")
	for n := 0; n < len(b)-1; n++ {
		r := readerAt{io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken))}
		if _, err := safetensors.Read(r, int64(len(b)), within(maxMemory)); !errors.Is(err, broken) || errors.Is(err, tensor.ErrFormat) {
			t.Fatalf("after %d bytes: got %v", n, err)
		}
	}
}

// readerAt is a stream that is read in order.
type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return io.ReadFull(r.Reader, p) }

func TestReadIndex(t *testing.T) {
	type entry struct{ name, file string }
	for name, c := range map[string]struct {
		text string
		want []entry
	}{
		"one":        {`{"metadata":{"total_size":12,"x":[1.5e3,-2,true,null,{"y":"z"}]},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}`, []entry{{"a", "m-1.safetensors"}, {"b", "m-2.safetensors"}}},
		"empty":      {`{"weight_map":{}}`, nil},
		"no map":     {`{"metadata":{}}`, nil},
		"two maps":   {`{"weight_map":{},"weight_map":{}}`, nil},
		"list":       {`{"weight_map":[]}`, nil},
		"number":     {`{"weight_map":{"a":1}}`, nil},
		"null":       {`{"weight_map":null}`, nil},
		"not an obj": {`[]`, nil},
		"trailing":   {`{"weight_map":{}}x`, nil},
		"cut":        {`{"weight_map":{"a":"f"`, nil},
		"bad number": {`{"metadata":01,"weight_map":{}}`, nil},
		"bad word":   {`{"metadata":nul,"weight_map":{}}`, nil},
		"deep":       {`{"metadata":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"weight_map":{}}`, nil},
		"nothing":    {``, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []entry
			err := safetensors.ReadIndex(strings.NewReader(c.text), func(name, file string) error {
				got = append(got, entry{name, file})
				return nil
			})
			good := c.want != nil || name == "empty"
			if good && (err != nil || !slices.Equal(got, c.want)) {
				t.Errorf("got %v, %v", got, err)
			}
			if !good && !errors.Is(err, tensor.ErrFormat) {
				t.Errorf("got %v, %v, want ErrFormat", got, err)
			}
		})
	}
}

// FuzzRead: what is accepted fills its file and is bounded by what was reserved.
func FuzzRead(f *testing.F) {
	for _, c := range tensortest.SafetensorsCases() {
		if c.Valid {
			f.Add(c.File)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := read(b)
		if err == nil {
			holds(t, list, b)
		} else if list != nil || !errors.Is(err, tensor.ErrFormat) && !errors.Is(err, errMemory) {
			t.Errorf("got %v, %v", list, err)
		}
	})
}

func FuzzReadIndex(f *testing.F) {
	f.Add(`{"metadata":{"total_size":12},"weight_map":{"a":"m-1.safetensors"}}`)
	f.Add(`{"x":[1,{"y":null}],"weight_map":{}}`)
	f.Fuzz(func(t *testing.T, s string) {
		err := safetensors.ReadIndex(strings.NewReader(s), func(string, string) error { return nil })
		if err != nil && !errors.Is(err, tensor.ErrFormat) {
			t.Error(err)
		}
	})
}
