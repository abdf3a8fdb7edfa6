// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package staging_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// wantNoSpace demands a SpaceError with the numbers; available below 0 means
// any.
func wantNoSpace(t *testing.T, err error, needed, available int64) {
	t.Helper()
	var space *staging.SpaceError
	if !errors.Is(err, staging.ErrNoSpace) || !errors.As(err, &space) {
		t.Fatalf("got %v, want ErrNoSpace", err)
	}
	if space.Needed != needed || available >= 0 && space.Available != available {
		t.Errorf("needed %d, available %d, want %d and %d", space.Needed, space.Available, needed, available)
	}
}

func modelSize() (n int64) {
	for _, f := range model {
		n += f.Size
	}
	return n
}

func TestCreateRefusesWhatTheDiskCannotHold(t *testing.T) {
	dest := filepath.Join(t.TempDir(), "model")
	_, err := staging.CreateOn(&staging.Faulty{Free: modelSize() - 1}, dest, id, model)
	wantNoSpace(t, err, modelSize(), modelSize()-1)
	wantOnly(t, filepath.Dir(dest))
	d, err := staging.CreateOn(&staging.Faulty{Free: modelSize()}, dest, id, model)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fillFile(d, 1), d.Abort(true)); err != nil {
		t.Fatal(err)
	}
	// What is on the disk already is not needed again.
	d, err = staging.CreateOn(&staging.Faulty{Free: modelSize() - model[1].Size}, dest, id, model)
	if err != nil {
		t.Fatal(err)
	}
	d.Abort(false)
}

func TestADiskThatFillsUpIsErrNoSpace(t *testing.T) {
	for _, fault := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		for op, needed := range map[string]int64{"reserve": 70_000, "write": piece} {
			t.Run(op+"/"+fault.Error(), func(t *testing.T) {
				full := true
				dest := filepath.Join(t.TempDir(), "model")
				d, err := staging.CreateOn(&staging.Faulty{Free: 1 << 20, Before: func(o, _ string) error {
					if o == op && full {
						return fault
					}
					return nil
				}}, dest, id, model)
				if err != nil {
					t.Fatal(err)
				}
				defer d.Abort(false)
				err = fillFile(d, 1)
				wantNoSpace(t, err, needed, 1<<20)
				if !errors.Is(err, fault) {
					t.Errorf("%v does not wrap %v", err, fault)
				}
				// Room was made: the same Dir goes on.
				full = false
				if err := errors.Join(fill(d), d.Publish()); err != nil {
					t.Fatal(err)
				}
				wantWhole(t, dest)
			})
		}
	}
}

func TestADirectoryWhoseParentWeMayNotWriteIsFilledFromInside(t *testing.T) {
	dest := destination(t, true)
	sys := &staging.Faulty{Before: func(op, name string) error {
		if op == "mkdir" && strings.HasPrefix(name, ".model.") {
			return syscall.EACCES
		}
		return nil
	}}
	d, err := staging.CreateOn(sys, dest, id, model)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(fillFile(d, 1), d.Abort(true)); err != nil {
		t.Fatal(err)
	}
	d, err = staging.CreateOn(sys, dest, id, model)
	if err != nil {
		t.Fatal(err)
	}
	if !d.Resumed() {
		t.Error("what lies inside was not taken up")
	}
	if err := errors.Join(fill(d), d.Publish()); err != nil {
		t.Fatal(err)
	}
	if !visible(t, dest, true) {
		t.Error("nothing is there")
	}
	wantOnly(t, filepath.Dir(dest), "model")
}

func TestADestinationInsideTakesOneModel(t *testing.T) {
	for name, plant := range map[string]func(dest string) error{
		"a file":           func(dest string) error { return os.WriteFile(filepath.Join(dest, "x"), nil, 0o644) },
		"a complete model": func(dest string) error { return stage(&staging.Faulty{Inside: true}, dest) },
		"a mark":           func(dest string) error { return os.WriteFile(filepath.Join(dest, staging.MarkComplete), nil, 0o644) },
		"another's move": func(dest string) error {
			return os.MkdirAll(filepath.Join(dest, ".modelsec-moving/.modelsec-ffff"), 0o755)
		},
		"a move that leads": func(dest string) error { return os.MkdirAll(filepath.Join(dest, ".modelsec-moving/..."), 0o755) },
		"a move of another model": func(dest string) error {
			d, err := staging.CreateOn(&staging.Faulty{Inside: true}, dest, "ffffffffffffffff", model)
			if err != nil {
				return err
			}
			mark := filepath.Join(dest, ".modelsec-moving/.modelsec-ffffffffffffffff")
			return errors.Join(fill(d), d.Abort(true), os.MkdirAll(mark, 0o755))
		},
		"a move that met a file of another": func(dest string) error {
			if err := os.WriteFile(filepath.Join(dest, "config.json"), []byte("precious"), 0o644); err != nil {
				return err
			}
			dir := filepath.Join(dest, ".modelsec-"+id)
			return errors.Join(os.MkdirAll(filepath.Join(dest, ".modelsec-moving", filepath.Base(dir)), 0o755),
				os.MkdirAll(filepath.Join(dir, "files"), 0o755), os.Chmod(dir, 0o700),
				os.WriteFile(filepath.Join(dir, "files/config.json"), content(0), 0o644))
		},
		"a move of nothing": func(dest string) error { return os.Mkdir(filepath.Join(dest, ".modelsec-moving"), 0o755) },
		"a move that is gone": func(dest string) error {
			return os.MkdirAll(filepath.Join(dest, ".modelsec-moving/.modelsec-"+id), 0o755)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dest := destination(t, true)
			late, err := staging.CreateOn(&staging.Faulty{Inside: true}, dest, "fedcba9876543210", model)
			if err != nil {
				t.Fatal(err)
			}
			defer late.Abort(false)
			if err := plant(dest); err != nil {
				t.Fatal(err)
			}
			if err := stage(&staging.Faulty{Inside: true}, dest); !errors.Is(err, staging.ErrExists) {
				t.Errorf("Create: got %v, want ErrExists", err)
			}
			if name == "a move that met a file of another" {
				if b, err := os.ReadFile(filepath.Join(dest, "config.json")); err != nil || string(b) != "precious" {
					t.Errorf("the file of another holds %q, %v", b, err)
				}
			}
			if name == "a move of nothing" {
				return // an empty directory is no mark: the rename replaces it
			}
			if err := errors.Join(fill(late), late.Publish()); !errors.Is(err, staging.ErrExists) {
				t.Errorf("Publish: got %v, want ErrExists", err)
			}
		})
	}
}
