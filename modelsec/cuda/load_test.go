// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package cuda_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/modelsec/cuda"
	"github.com/modelsec/modelsec-go/registry"
)

// small is a ring of two slots of 1 MiB.
func (f *fake) small() *cuda.Options {
	return &cuda.Options{Driver: f.path, Slots: 2, SlotSize: mib}
}

// open opens the device and closes it at the end, when nothing may be left.
func (f *fake) open(t *testing.T, o *cuda.Options) *cuda.Device {
	t.Helper()
	d, err := cuda.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		f.nothingLeft(t)
	})
	return d
}

// onDevice demands that the device holds what the source has, and frees it.
func onDevice(t *testing.T, d *cuda.Device, m *cuda.Memory, want [][]byte) {
	t.Helper()
	if len(m.Tensors()) != len(want) {
		t.Fatalf("%d tensors, want %d", len(m.Tensors()), len(want))
	}
	for i, x := range m.Tensors() {
		got, err := d.Read(x)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want[i]) {
			t.Errorf("tensor %q %d differs on the device", x.Name, x.Shape)
		}
		if (x.Pointer == 0) != (x.Size == 0) || x.Pointer%256 != 0 {
			t.Errorf("tensor %q of %d bytes lies at %#x", x.Name, x.Size, x.Pointer)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func sources(list []modelsec.Tensor) (out [][]byte) {
	for _, x := range list {
		out = append(out, bytesOf(x))
	}
	return out
}

// TestLoadPutsEveryByteOnTheDevice: tensors of all sizes, through rings that
// hold some of them and that hold all.
func TestLoadPutsEveryByteOnTheDevice(t *testing.T) {
	m := opened(t, nil)
	list := must(m.Tensors(t.Context()))
	if len(list) != len(tensors)+1 {
		t.Fatalf("%d tensors", len(list))
	}
	for name, o := range map[string]cuda.Options{
		"one slot": {Slots: 1, SlotSize: mib}, "two slots": {Slots: 2, SlotSize: mib}, "slots of an odd size": {Slots: 3, SlotSize: mib + 12345},
		"all in a slot": {SlotSize: 32 * mib}, "no read-back": {Slots: 2, SlotSize: mib, NoReadBack: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			o.Driver = f.path
			d := f.open(t, &o)
			var pinned live
			f.live(&pinned)
			onDevice(t, d, must(d.Load(t.Context(), m, nil)), sources(list))
			var after live
			if f.live(&after); after != pinned {
				t.Errorf("in use are %+v, before the load %+v", after, pinned)
			}
			if f.calls("cuMemAlloc_v2") != 1 {
				t.Error("more than one allocation")
			}
		})
	}
}

// TestLoadPutsSlicesOnTheDevice: of any dimension, some twice, in an order that
// is not the file's.
func TestLoadPutsSlicesOnTheDevice(t *testing.T) {
	m := opened(t, nil)
	f := newFake(t)
	d := f.open(t, f.small())
	var want []modelsec.Tensor
	for _, x := range slices.Backward(must(m.Tensors(t.Context()))) {
		switch x.Name {
		case "embed":
			want = append(want, must(x.Slice(1, 100, 600)), must(x.Slice(0, 7, 3000)), must(must(x.Slice(0, 1, 2900)).Slice(1, 0, 650)))
		case "long rows":
			want = append(want, must(x.Slice(2, 1, 599999)), must(x.Slice(1, 1, 2)))
		case "packed":
			want = append(want, must(x.Slice(0, 2, 5000)))
		case "head":
			want = append(want, x, x)
		}
	}
	var mu sync.Mutex
	host := make(map[string][]byte)
	err := m.LoadTensors(t.Context(), want, modelsec.TensorSink{
		Alloc: func(x modelsec.Tensor) ([]byte, error) { return make([]byte, x.Size), nil },
		Done: func(x modelsec.Tensor, b []byte) error {
			mu.Lock()
			defer mu.Unlock()
			host[fmt.Sprint(x.Name, x.Shape, x.Offset)] = b
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	var contents [][]byte
	for _, x := range want {
		contents = append(contents, host[fmt.Sprint(x.Name, x.Shape, x.Offset)])
	}
	onDevice(t, d, must(d.Load(t.Context(), m, want)), contents)
}

// TestBatchesShareFewSegments: whatever the order that tensors are asked for in,
// one segment for each batch is fetched more than once.
func TestBatchesShareFewSegments(t *testing.T) {
	var batches atomic.Int64
	place := &counter{Opener: registry.NewMemory()}
	m := openedAt(t, place, func(_ context.Context, e modelsec.Event) error {
		if e.Op == "load" && e.Phase == "intent" {
			batches.Add(1)
		}
		return nil
	})
	list := must(m.Tensors(t.Context()))
	embed := list[slices.IndexFunc(list, func(x modelsec.Tensor) bool { return x.Name == "embed" })]
	var rows []modelsec.Tensor
	for from := int64(0); from < 3000; from += 10 {
		rows = append(rows, must(embed.Slice(0, from, from+10)))
	}
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for _, want := range [][]modelsec.Tensor{list, rows} {
		f := newFake(t)
		d := f.open(t, f.small())
		_, once, err := m.Cost(t.Context(), want)
		if err != nil {
			t.Fatal(err)
		}
		batches.Store(0)
		place.fetched.Store(0)
		must(d.Load(t.Context(), m, want)).Close()
		const segment = mib + encrypt.SegmentOverhead
		if got, most := place.fetched.Load(), once+batches.Load()*segment; got > most || batches.Load() < 4 {
			t.Errorf("%d bytes were fetched for %d batches, at most %d are needed", got, batches.Load(), most)
		}
	}
}

// TestLoadsShareTheRing: many at a time, and memory that outlives the device.
func TestLoadsShareTheRing(t *testing.T) {
	m := opened(t, nil)
	list := must(m.Tensors(t.Context()))
	f := newFake(t)
	d := f.open(t, f.small())
	var loads sync.WaitGroup
	for range 4 {
		loads.Go(func() {
			w, err := d.Load(t.Context(), m, list[4:])
			if err != nil {
				t.Error(err)
				return
			}
			onDevice(t, d, w, sources(list[4:]))
		})
	}
	loads.Wait()

	w := must(d.Load(t.Context(), m, list[:1]))
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if _, err := d.Load(t.Context(), m, list[:1]); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v", err)
	}
	var got live
	if f.live(&got); got != (live{Device: w.Size(), Contexts: 1}) {
		t.Errorf("in use are %+v", got)
	}
	for range 2 {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestReadBackFindsACorruptedCopy, and without the check nothing does.
func TestReadBackFindsACorruptedCopy(t *testing.T) {
	m := opened(t, nil)
	list := must(m.Tensors(t.Context()))
	for nth := range int32(3) {
		f := newFake(t)
		f.corrupt(1 + 5*nth)
		w, err := f.open(t, f.small()).Load(t.Context(), m, nil)
		if !errors.Is(err, cuda.ErrReadBack) || w != nil {
			t.Errorf("got %v", err)
		}
	}
	f := newFake(t)
	f.corrupt(1)
	o := f.small()
	o.NoReadBack = true
	d := f.open(t, o)
	w := must(d.Load(t.Context(), m, list[:1]))
	if bytes.Equal(must(d.Read(w.Tensors()[0])), bytesOf(list[0])) {
		t.Error("the copy was not corrupted")
	}
	w.Close()
}

// TestLoadOnAFullDeviceIsRefusedAtOnce: nothing is fetched, and the host can
// load the same model.
func TestLoadOnAFullDeviceIsRefusedAtOnce(t *testing.T) {
	var loads atomic.Int32
	m := opened(t, func(_ context.Context, e modelsec.Event) error {
		if e.Op == "load" {
			loads.Add(1)
		}
		return nil
	})
	f := newFake(t)
	f.set(12040, 1, 4*mib)
	d := f.open(t, f.small())
	w, err := d.Load(t.Context(), m, nil)
	var failed *cuda.Error
	if !errors.Is(err, cuda.ErrOutOfMemory) || !errors.As(err, &failed) || failed.Call != "cuMemAlloc" || w != nil {
		t.Errorf("got %v", err)
	}
	if loads.Load() != 0 {
		t.Error("something was fetched")
	}
	list := must(m.Tensors(t.Context()))
	if err := m.LoadTensors(t.Context(), nil, modelsec.TensorSink{Alloc: func(x modelsec.Tensor) ([]byte, error) { return make([]byte, x.Size), nil }}); err != nil {
		t.Error(err)
	}
	onDevice(t, d, must(d.Load(t.Context(), m, list[:5])), sources(list[:5]))
}

// TestCancelledLoadFreesEverything: in the middle, with the caller's cause.
func TestCancelledLoadFreesEverything(t *testing.T) {
	cause := errors.New("the server stops")
	for _, at := range []int32{1, 4, 9} {
		ctx, cancel := context.WithCancelCause(t.Context())
		var loads atomic.Int32
		m := opened(t, func(_ context.Context, e modelsec.Event) error {
			if e.Op == "load" && e.Phase == "intent" && loads.Add(1) == at {
				cancel(cause)
			}
			return nil
		})
		f := newFake(t)
		w, err := f.open(t, f.small()).Load(ctx, m, nil)
		if !errors.Is(err, cause) || w != nil {
			t.Errorf("got %v", err)
		}
	}
}

// TestFailedBatchEndsTheLoad: what modelsec refuses is refused here.
func TestFailedBatchEndsTheLoad(t *testing.T) {
	var loads atomic.Int32
	m := opened(t, func(_ context.Context, e modelsec.Event) error {
		if e.Op == "load" && e.Phase == "intent" && loads.Add(1) == 5 {
			return errors.New("no room")
		}
		return nil
	})
	f := newFake(t)
	d := f.open(t, f.small())
	if _, err := d.Load(t.Context(), m, nil); !errors.Is(err, modelsec.ErrAudit) {
		t.Errorf("got %v", err)
	}
	m.Close()
	if _, err := d.Load(t.Context(), m, nil); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// TestLoadRefusesTensorsThatAreNotThere: the fields of Tensor are the caller's
// to change.
func TestLoadRefusesTensorsThatAreNotThere(t *testing.T) {
	m := opened(t, nil)
	f := newFake(t)
	d := f.open(t, f.small())
	list := must(m.Tensors(t.Context()))
	embed := list[slices.IndexFunc(list, func(x modelsec.Tensor) bool { return x.Name == "embed" })]
	for name, change := range map[string]func(x *modelsec.Tensor){
		"negative size":            func(x *modelsec.Tensor) { x.Size = -1 },
		"overflow":                 func(x *modelsec.Tensor) { x.Size = 1<<63 - 1 },
		"no shape":                 func(x *modelsec.Tensor) { x.Shape = nil },
		"another shape":            func(x *modelsec.Tensor) { x.Shape = []int64{1 << 40, 700} },
		"too many bytes":           func(x *modelsec.Tensor) { x.Size++ },
		"empty of an unknown file": func(x *modelsec.Tensor) { x.File, x.Size = "other.safetensors", 0 },
		"unknown file":             func(x *modelsec.Tensor) { x.File = "other.safetensors" },
		"behind the end":           func(x *modelsec.Tensor) { x.Offset = 1 << 40 },
		"none of a model": func(x *modelsec.Tensor) {
			*x = modelsec.Tensor{Name: "x", File: x.File, Shape: []int64{4 * mib}, Size: 4 * mib}
		},
	} {
		t.Run(name, func(t *testing.T) {
			x := embed
			change(&x)
			if _, err := d.Load(t.Context(), m, []modelsec.Tensor{x}); !errors.Is(err, modelsec.ErrConfig) {
				t.Errorf("got %v", err)
			}
			if f.calls("cuMemAlloc_v2") != 0 {
				t.Error("memory was taken for it")
			}
		})
	}
	w := must(d.Load(t.Context(), m, []modelsec.Tensor{}))
	if w.Size() != 0 || w.Close() != nil {
		t.Error("no tensors take memory")
	}
}
