// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux && (amd64 || arm64)

package cuda_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/modelsec/cuda"
)

// TestOpenSaysWhatIsMissing: everything that means that this machine has no
// device to use is one error, with the reason.
func TestOpenSaysWhatIsMissing(t *testing.T) {
	text := filepath.Join(t.TempDir(), "libcuda.so")
	if err := os.WriteFile(text, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := newFake(t)
	for name, c := range map[string]struct {
		version, devices int32
		options          cuda.Options
		want             string
	}{
		"no library":      {12040, 1, cuda.Options{Driver: filepath.Join(t.TempDir(), "libcuda.so.1")}, "libcuda.so.1: cannot open"},
		"no such library": {12040, 1, cuda.Options{Driver: text}, "libcuda.so"},
		"another library": {12040, 1, cuda.Options{Driver: "libc.so.6"}, "older than CUDA 11.0"},
		"old driver":      {10020, 1, cuda.Options{Driver: f.path}, "the driver is for CUDA 10.2, and 11.0 is needed"},
		"no device":       {12040, 0, cuda.Options{Driver: f.path}, "cuInit: CUDA_ERROR_NO_DEVICE (100): a sentence of the driver"},
		"no such device":  {12040, 2, cuda.Options{Driver: f.path, Ordinal: 2}, "device 2 of 2"},
	} {
		t.Run(name, func(t *testing.T) {
			f.set(c.version, c.devices, 1<<30)
			d, err := cuda.Open(&c.options)
			if !errors.Is(err, cuda.ErrUnavailable) || d != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			f.nothingLeft(t)
		})
	}
}

func TestOpenRefusesOptionsOutOfBounds(t *testing.T) {
	for _, o := range []cuda.Options{{Ordinal: -1}, {Slots: -1}, {Slots: 65}, {SlotSize: -1}, {SlotSize: mib - 1}, {SlotSize: 1<<30 + 1}} {
		if _, err := cuda.Open(&o); !errors.Is(err, modelsec.ErrConfig) {
			t.Errorf("%+v: got %v", o, err)
		}
	}
}

func TestDeviceHasAName(t *testing.T) {
	f := newFake(t)
	o := f.small()
	o.Ordinal = 1
	if got := f.open(t, o).Name(); got != "Fake GPU" {
		t.Errorf("got %q", got)
	}
}

// TestEveryFailedCallIsNamed makes each call of the driver fail once, at the
// first and the third time: somewhere between Open and Close an error says which
// one, and everything else is freed.
func TestEveryFailedCallIsNamed(t *testing.T) {
	m := opened(t, nil)
	for _, symbol := range cuda.Symbols() {
		if strings.HasPrefix(symbol, "cuGetError") {
			continue // they say what the others mean
		}
		for _, nth := range []int32{1, 3} {
			t.Run(symbol, func(t *testing.T) {
				f := newFake(t)
				f.fail(symbol, nth, 700, false)
				err := cycle(f, t, m)
				if f.calls(symbol) < nth {
					return
				}
				var failed *cuda.Error
				if !errors.As(err, &failed) || failed.Call != strings.TrimSuffix(symbol, "_v2") || failed.Code != 700 || failed.Name != "CUDA_ERROR_ILLEGAL_ADDRESS" || failed.Text == "" {
					t.Fatalf("got %v", err)
				}
				if errors.Is(err, cuda.ErrOutOfMemory) {
					t.Errorf("%v is not about memory", err)
				}
				var got live
				f.live(&got)
				switch symbol {
				case "cuMemsetD8_v2":
					got.Mistakes--
				case "cuMemFree_v2":
					got.Device = 0
				case "cuMemFreeHost":
					got.Pinned -= mib
				case "cuStreamDestroy_v2":
					got.Streams--
				case "cuEventDestroy_v2":
					got.Events--
				case "cuDevicePrimaryCtxRelease_v2":
					got.Contexts--
				case "cuCtxPopCurrent_v2":
					got.Pushed--
				case "cuCtxPushCurrent_v2":
					return // what needs the context cannot be freed
				}
				if got != (live{}) {
					t.Errorf("left behind: %+v", got)
				}
			})
		}
	}
}

// cycle opens, loads and closes, and returns all errors.
func cycle(f *fake, t *testing.T, m *modelsec.Model) error {
	d, err := cuda.Open(f.small())
	if err != nil {
		return err
	}
	w, err := d.Load(t.Context(), m, nil)
	if err == nil {
		err = w.Close()
	}
	return errors.Join(err, d.Close())
}

// TestLostDeviceEndsInErrors: after some errors every further call fails.
func TestLostDeviceEndsInErrors(t *testing.T) {
	m := opened(t, nil)
	for _, symbol := range []string{"cuMemHostAlloc", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuEventSynchronize", "cuMemFree_v2"} {
		t.Run(symbol, func(t *testing.T) {
			f := newFake(t)
			f.fail(symbol, 1, 700, true)
			var failed *cuda.Error
			if err := cycle(f, t, m); !errors.As(err, &failed) || failed.Code != 700 {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestUnknownErrorsAreErrors: the driver may return what it has no name for.
func TestUnknownErrorsAreErrors(t *testing.T) {
	f := newFake(t)
	f.fail("cuStreamCreate", 1, 4242, false)
	_, err := cuda.Open(f.small())
	if want := "cuStreamCreate: unknown error (4242): unknown error"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v", err)
	}
	f.nothingLeft(t)
}

// TestRealDriverLoadsOrSaysWhyNot runs on the GPU of this machine, or on the
// want of one.
func TestRealDriverLoadsOrSaysWhyNot(t *testing.T) {
	d, err := cuda.Open(&cuda.Options{SlotSize: 2 * mib})
	if err != nil {
		if !errors.Is(err, cuda.ErrUnavailable) {
			t.Error(err)
		}
		t.Logf("no GPU was tried: %v", err)
		return
	}
	m := opened(t, nil)
	list := must(m.Tensors(t.Context()))
	onDevice(t, d, must(d.Load(t.Context(), m, nil)), sources(list))
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("tried on %s", d.Name())
}
