// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package tensor_test

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

var (
	bytewise = tensor.Block{Elements: 1, Bytes: 1}
	float    = tensor.Block{Elements: 1, Bytes: 4}
	nibbles  = tensor.Block{Elements: 2, Bytes: 1}
	quant    = tensor.Block{Elements: 32, Bytes: 18}
)

// cut is one Slice.
type cut struct {
	dim      int
	from, to int64
}

func region(t testing.TB, b tensor.Block, offset int64, shape []int64, cuts ...cut) *tensor.Region {
	t.Helper()
	r, err := tensor.NewRegion(b, offset, shape)
	for _, c := range cuts {
		if err == nil {
			r, err = r.Slice(c.dim, c.from, c.to)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func all(r *tensor.Region) []tensor.Run { return slices.Collect(r.Runs(0, math.MaxInt64)) }

func TestRunsOfSlices(t *testing.T) {
	for name, c := range map[string]struct {
		region *tensor.Region
		want   []tensor.Run
	}{
		"whole":               {region(t, float, 100, []int64{2, 3}), []tensor.Run{{100, 0, 24}}},
		"rank 0":              {region(t, float, 100, nil), []tensor.Run{{100, 0, 4}}},
		"dimension 0":         {region(t, float, 100, []int64{4, 3}, cut{0, 1, 3}), []tensor.Run{{112, 0, 24}}},
		"dimension 1":         {region(t, float, 100, []int64{2, 3}, cut{1, 1, 2}), []tensor.Run{{104, 0, 4}, {116, 4, 4}}},
		"both":                {region(t, float, 100, []int64{4, 4}, cut{0, 2, 4}, cut{1, 0, 2}), []tensor.Run{{132, 0, 8}, {148, 8, 8}}},
		"twice":               {region(t, bytewise, 0, []int64{10}, cut{0, 2, 8}, cut{0, 1, 3}), []tensor.Run{{3, 0, 2}}},
		"one row":             {region(t, bytewise, 0, []int64{5, 4}, cut{0, 2, 3}, cut{1, 1, 4}), []tensor.Run{{9, 0, 3}}},
		"middle of three":     {region(t, bytewise, 0, []int64{2, 3, 4}, cut{1, 1, 3}), []tensor.Run{{4, 0, 8}, {16, 8, 8}}},
		"inner of three":      {region(t, bytewise, 0, []int64{2, 2, 4}, cut{2, 1, 2}), []tensor.Run{{1, 0, 1}, {5, 1, 1}, {9, 2, 1}, {13, 3, 1}}},
		"outer and inner":     {region(t, bytewise, 0, []int64{3, 2, 4}, cut{0, 1, 2}, cut{2, 2, 4}), []tensor.Run{{10, 0, 2}, {14, 2, 2}}},
		"nothing":             {region(t, float, 100, []int64{4, 3}, cut{0, 2, 2}), nil},
		"empty tensor":        {region(t, float, 100, []int64{0, 3}), nil},
		"empty, huge":         {region(t, float, 100, []int64{0, 1 << 62, 1 << 62}), nil},
		"packed":              {region(t, nibbles, 0, []int64{4, 2}, cut{0, 1, 2}), []tensor.Run{{1, 0, 1}}},
		"quantised rows":      {region(t, quant, 0, []int64{4, 64}, cut{0, 1, 3}), []tensor.Run{{36, 0, 72}}},
		"quantised columns":   {region(t, quant, 0, []int64{2, 64}, cut{1, 32, 64}), []tensor.Run{{18, 0, 18}, {54, 18, 18}}},
		"dimensions of one":   {region(t, bytewise, 0, []int64{1, 3, 1}, cut{1, 1, 3}), []tensor.Run{{1, 0, 2}}},
		"all of a dimension":  {region(t, bytewise, 0, []int64{3, 4}, cut{1, 0, 4}), []tensor.Run{{0, 0, 12}}},
		"the last of a large": {region(t, bytewise, 0, []int64{1 << 40, 2}, cut{0, 1<<40 - 1, 1 << 40}, cut{1, 1, 2}), []tensor.Run{{1<<41 - 1, 0, 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := all(c.region); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestSliceRefusesWhatIsNotThere(t *testing.T) {
	for name, c := range map[string]struct {
		block tensor.Block
		shape []int64
		cut   cut
	}{
		"negative dimension": {float, []int64{2}, cut{-1, 0, 1}},
		"no such dimension":  {float, []int64{2}, cut{1, 0, 1}},
		"rank 0":             {float, nil, cut{0, 0, 1}},
		"negative":           {float, []int64{2}, cut{0, -1, 1}},
		"behind the end":     {float, []int64{2}, cut{0, 0, 3}},
		"backwards":          {float, []int64{2}, cut{0, 2, 1}},
		"overflow":           {float, []int64{2}, cut{0, math.MinInt64, math.MaxInt64}},
		"half a byte":        {nibbles, []int64{4}, cut{0, 1, 3}},
		"half a byte long":   {nibbles, []int64{4}, cut{0, 0, 3}},
		"odd rows":           {nibbles, []int64{2, 3}, cut{0, 1, 2}},
		"within a block":     {quant, []int64{2, 64}, cut{1, 16, 48}},
	} {
		t.Run(name, func(t *testing.T) {
			r := region(t, c.block, 0, c.shape)
			if _, err := r.Slice(c.cut.dim, c.cut.from, c.cut.to); !errors.Is(err, tensor.ErrSlice) {
				t.Errorf("got %v, want ErrSlice", err)
			}
		})
	}
}

func TestSizeRefusesOverflow(t *testing.T) {
	for _, shape := range [][]int64{{1 << 62, 2}, {1 << 32, 1 << 32}, {-1}, {1 << 61, 2}, {math.MaxInt64}} {
		if n, err := float.Size(shape); !errors.Is(err, tensor.ErrFormat) {
			t.Errorf("%d: got %d, %v", shape, n, err)
		}
	}
}

// FuzzRuns compares the runs of two cuts with the elements one by one.
func FuzzRuns(f *testing.F) {
	f.Add(uint8(3), uint8(4), uint8(5), uint8(1), uint8(2), uint8(3), uint8(1), uint8(2), uint16(7), uint16(50))
	f.Fuzz(func(t *testing.T, a, b, c, dim, from, to, dim2, width uint8, low, high uint16) {
		shape := []int64{int64(a % 7), int64(b % 7), int64(c % 7)}
		r, err := tensor.NewRegion(bytewise, 10, shape)
		if err != nil {
			t.Fatal(err)
		}
		var from3, to3 [3]int64
		copy(to3[:], shape)
		for _, c := range []cut{{int(dim % 3), int64(from), int64(to)}, {int(dim2 % 3), int64(from % 2), int64(width)}} {
			s, err := r.Slice(c.dim, c.from, c.to)
			if err != nil {
				return
			}
			r = s
			from3[c.dim], to3[c.dim] = from3[c.dim]+c.from, from3[c.dim]+c.to
		}
		var want []tensor.Run
		at := int64(0)
		for x := from3[0]; x < to3[0]; x++ {
			for y := from3[1]; y < to3[1]; y++ {
				for z := from3[2]; z < to3[2]; z++ {
					offset := 10 + (x*shape[1]+y)*shape[2] + z
					if offset >= int64(low) && offset < int64(high) {
						want = append(want, tensor.Run{Offset: offset, At: at, Length: 1})
					}
					at++
				}
			}
		}
		if r.Size() != at {
			t.Fatalf("size %d, want %d", r.Size(), at)
		}
		var got []tensor.Run
		for run := range r.Runs(int64(low), int64(high)) {
			for i := range run.Length {
				got = append(got, tensor.Run{Offset: run.Offset + i, At: run.At + i, Length: 1})
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
		if n := len(want); n > 0 && (r.Offset() > want[0].Offset || r.End() <= want[n-1].Offset) {
			t.Fatalf("from %d to %d, want %v in it", r.Offset(), r.End(), want)
		}
	})
}
