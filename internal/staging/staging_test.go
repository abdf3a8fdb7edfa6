// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package staging_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

const id = "0123456789abcdef"

// model is what the tests stage: files at several depths, an empty one, and
// one that is written in more than one piece.
var model = []staging.File{
	{Path: "config.json", Size: 11},
	{Path: "a/b/c/weights.bin", Size: 70_000},
	{Path: "a/tokenizer.json", Size: 1},
	{Path: "empty", Size: 0},
}

// content is what file number i holds.
func content(i int) []byte {
	b := make([]byte, model[i].Size)
	for k := range b {
		b[k] = byte(i + k%251 + 1)
	}
	return b
}

const piece = 32_768

func fill(d *staging.Dir) error {
	for i := range model {
		if err := fillFile(d, i); err != nil {
			return err
		}
	}
	return nil
}

// fillFile writes one file as the package's users do: it proves what is there
// already, and writes the rest.
func fillFile(d *staging.Dir, i int) error {
	var off int64
	have := make([]byte, piece)
	for want := range slices.Chunk(content(i), piece) {
		have = have[:len(want)]
		if !d.Resumed() || d.ReadAt(i, have, off) != nil || !bytes.Equal(have, want) {
			if err := d.WriteAt(i, want, off); err != nil {
				return err
			}
		}
		off += int64(len(want))
	}
	return d.Done(i)
}

func create(t *testing.T, dest string) *staging.Dir {
	t.Helper()
	d, err := staging.Create(dest, id, model)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Abort(true) })
	return d
}

// wantWhole demands that dest holds the model and nothing else, apart from
// names that the format reserves.
func wantWhole(t *testing.T, dest string) {
	t.Helper()
	var got []string
	err := filepath.WalkDir(dest, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if rel, _ := filepath.Rel(dest, p); !e.IsDir() && !strings.HasPrefix(rel, ".modelsec-") {
			got = append(got, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i, f := range model {
		want = append(want, f.Path)
		b, err := os.ReadFile(filepath.Join(dest, f.Path))
		if err != nil || !bytes.Equal(b, content(i)) {
			t.Errorf("%s: %d bytes that differ from what was written, %v", f.Path, len(b), err)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("destination holds %q, want %q", got, want)
	}
}

// wantOnly demands that dir holds exactly names.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, names) {
		t.Errorf("%s holds %q, want %q", dir, got, names)
	}
}

func TestPublishMakesAllFilesVisibleAtOnce(t *testing.T) {
	for _, before := range []string{"absent", "empty directory"} {
		t.Run(before, func(t *testing.T) {
			parent := t.TempDir()
			dest := filepath.Join(parent, "model")
			if before != "absent" {
				if err := os.Mkdir(dest, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			d := create(t, dest)
			if err := fill(d); err != nil {
				t.Fatal(err)
			}
			if names, err := os.ReadDir(dest); len(names) > 0 || err == nil && before == "absent" {
				t.Errorf("before Publish the destination holds %v, %v", names, err)
			}
			if err := d.Publish(); err != nil {
				t.Fatal(err)
			}
			wantWhole(t, dest)
			wantOnly(t, parent, "model")
			if err := d.Abort(false); err != nil {
				t.Error(err)
			}
			wantWhole(t, dest)
		})
	}
}

func TestCreateRefusesADestinationThatIsNotAbsentOrEmpty(t *testing.T) {
	for name, plant := range map[string]func(dest string) error{
		"file":    func(dest string) error { return os.WriteFile(dest, nil, 0o644) },
		"symlink": func(dest string) error { return os.Symlink(os.TempDir(), dest) },
		"symlink to nothing": func(dest string) error {
			return os.Symlink("nowhere", dest)
		},
		"directory with a file": func(dest string) error {
			return errors.Join(os.Mkdir(dest, 0o755), os.WriteFile(filepath.Join(dest, "x"), nil, 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			dest := filepath.Join(parent, "model")
			if err := plant(dest); err != nil {
				t.Fatal(err)
			}
			d, err := staging.Create(dest, id, model)
			if d != nil || !errors.Is(err, staging.ErrExists) || !errors.Is(err, fs.ErrExist) {
				t.Errorf("got %v, %v, want ErrExists", d, err)
			}
			wantOnly(t, parent, "model")
		})
	}
}

func TestCreateRefusesWhatItCannotStage(t *testing.T) {
	parent := t.TempDir()
	for name, c := range map[string]struct {
		dest, id string
		files    []staging.File
	}{
		"id that is too short":      {"model", id[1:], model},
		"id in upper case":          {"model", "0123456789ABCDEF", model},
		"id with a separator":       {"model", "0123456789abcde/", model},
		"parent that is not there":  {"none/model", id, model},
		"path that leaves":          {"model", id, []staging.File{{Path: "../x"}}},
		"absolute path":             {"model", id, []staging.File{{Path: "/x"}}},
		"reserved path":             {"model", id, []staging.File{{Path: ".modelsec-complete"}}},
		"path twice":                {"model", id, []staging.File{{Path: "x"}, {Path: "x"}}},
		"path that is a directory":  {"model", id, []staging.File{{Path: "x"}, {Path: "x/y"}}},
		"negative size":             {"model", id, []staging.File{{Path: "x", Size: -1}}},
		"sizes that overflow a sum": {"model", id, []staging.File{{Path: "x", Size: 1<<63 - 1}, {Path: "y", Size: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := staging.Create(filepath.Join(parent, c.dest), c.id, c.files)
			if d != nil || err == nil {
				t.Errorf("got %v, %v", d, err)
			}
			wantOnly(t, parent)
		})
	}
}

func TestWritesStayInsideTheFile(t *testing.T) {
	d := create(t, filepath.Join(t.TempDir(), "model"))
	for _, c := range []struct {
		file, n int
		off     int64
	}{
		{-1, 1, 0}, {len(model), 1, 0}, {0, 1, -1}, {0, 12, 0}, {0, 1, 11}, {0, 11, 1}, {3, 1, 0}, {0, 1, 1<<63 - 1},
	} {
		if err := d.WriteAt(c.file, make([]byte, c.n), c.off); err == nil {
			t.Errorf("%d bytes were written at %d of file %d", c.n, c.off, c.file)
		}
		if err := d.ReadAt(c.file, make([]byte, c.n), c.off); err == nil {
			t.Errorf("%d bytes were read at %d of file %d", c.n, c.off, c.file)
		}
	}
	for _, n := range []int64{-1, 1<<63 - 1, 1 << 61} {
		if err := d.PutRecord(n, make([]byte, 8)); err == nil {
			t.Errorf("record %d was written", n)
		}
	}
	if err := d.PutRecord(0, nil); err == nil {
		t.Error("an empty record was written")
	}
}

func TestPublishRefusesFilesThatAreNotDone(t *testing.T) {
	for name, spoil := range map[string]func(d *staging.Dir) error{
		"nothing was written":    func(*staging.Dir) error { return nil },
		"one file is not done":   func(d *staging.Dir) error { return errors.Join(fill(d), d.WriteAt(1, []byte{1}, 0)) },
		"the empty file is not":  func(d *staging.Dir) error { return errors.Join(fillFile(d, 0), fillFile(d, 1), fillFile(d, 2)) },
		"Abort was called":       func(d *staging.Dir) error { return errors.Join(fill(d), d.Abort(true)) },
		"Abort removed the data": func(d *staging.Dir) error { return errors.Join(fill(d), d.Abort(false)) },
	} {
		t.Run(name, func(t *testing.T) {
			dest := filepath.Join(t.TempDir(), "model")
			d := create(t, dest)
			if err := spoil(d); err != nil {
				t.Fatal(err)
			}
			if err := d.Publish(); err == nil {
				t.Error("Publish succeeded")
			}
			if _, err := os.Lstat(dest); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the destination is there: %v", err)
			}
		})
	}
}

func TestEveryCallAfterTheEndIsErrClosed(t *testing.T) {
	for name, end := range map[string]func(d *staging.Dir) error{
		"Publish":      func(d *staging.Dir) error { return errors.Join(fill(d), d.Publish()) },
		"Abort keep":   func(d *staging.Dir) error { return d.Abort(true) },
		"Abort remove": func(d *staging.Dir) error { return d.Abort(false) },
	} {
		t.Run(name, func(t *testing.T) {
			d := create(t, filepath.Join(t.TempDir(), "model"))
			if err := end(d); err != nil {
				t.Fatal(err)
			}
			b := []byte{0}
			for call, err := range map[string]error{
				"WriteAt": d.WriteAt(0, b, 0), "ReadAt": d.ReadAt(0, b, 0), "Done": d.Done(0),
				"PutRecord": d.PutRecord(0, b), "Record": d.Record(0, b), "Publish": d.Publish(),
			} {
				if !errors.Is(err, fs.ErrClosed) {
					t.Errorf("%s: got %v, want ErrClosed", call, err)
				}
			}
			if err := d.Abort(false); err != nil {
				t.Errorf("Abort: %v", err)
			}
		})
	}
}
