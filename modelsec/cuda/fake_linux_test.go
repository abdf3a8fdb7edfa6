// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package cuda_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ebitengine/purego"
)

// missing ends a test that needs something this machine does not have: a named
// skip for whoever tries the library out, a failure where CI=true, so that
// nothing goes untried in silence.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("CI needs %s", what)
	}
	t.Skipf("not tried: %s is missing", what)
}

// compiled is testdata/fakecuda.c as a library. Every test loads a copy of its
// own, and so has a driver of its own.
var compiled = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "fakecuda-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "libcuda.so")
	if out, err := exec.Command("gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-pthread", "-o", path, "testdata/fakecuda.c").CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(path)
})

// fake is one loaded copy of the library that stands in for the driver.
type fake struct {
	path string

	set     func(version, devices int32, memory uint64)
	fail    func(name string, nth, code int32, sticky bool)
	corrupt func(nth int32)
	calls   func(name string) int32
	live    func(*live)
}

// live is what was made and not freed yet. Mistakes are calls that the real
// driver need not survive.
type live struct{ Device, Pinned, Streams, Events, Contexts, Pushed, Mistakes int64 }

func newFake(t *testing.T) *fake {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil {
		missing(t, "gcc")
	}
	library, err := compiled()
	if err != nil {
		t.Fatalf("gcc: %v\n%s", err, library)
	}
	f := &fake{path: filepath.Join(t.TempDir(), "libcuda.so")}
	if err := os.WriteFile(f.path, library, 0o700); err != nil {
		t.Fatal(err)
	}
	handle, err := purego.Dlopen(f.path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		t.Fatal(err)
	}
	for name, function := range map[string]any{
		"fake_set": &f.set, "fake_fail": &f.fail, "fake_corrupt": &f.corrupt, "fake_calls": &f.calls, "fake_live": &f.live,
	} {
		purego.RegisterLibFunc(function, handle, name)
	}
	return f
}

// nothingLeft demands that all was freed, and in the right order.
func (f *fake) nothingLeft(t *testing.T) {
	t.Helper()
	var got live
	if f.live(&got); got != (live{}) {
		t.Errorf("left behind: %+v", got)
	}
}
