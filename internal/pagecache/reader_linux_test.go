// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pagecache

import (
	"bytes"
	"io"
	"os"
	"testing"
)

const size = 3*window + 1234567

// TestReaderLeavesTheCacheAsItWas reads a file that the system has in memory,
// and one that it has not.
func TestReaderLeavesTheCacheAsItWas(t *testing.T) {
	f, content := onDisk(t)
	for range 2 {
		for _, before := range []bool{true, false} {
			if !before {
				open(f).drop(0, size)
			}
			read(t, f, content)
			for at := int64(0); at < size; at += window {
				if after := open(f).cached(at, min(window, size-at)); after != before {
					t.Errorf("from %d on in the cache: %v before it was read, %v afterwards", at, before, after)
				}
			}
		}
		if _, err := f.ReadAt(make([]byte, size), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReaderDropsNothingWhereTheSystemDoesNotSay: an overlay has nothing in its
// cache before nor after.
func TestReaderDropsNothingWhereTheSystemDoesNotSay(t *testing.T) {
	for _, has := range []fake{true, false} {
		r := newReader(bytes.NewReader(make([]byte, size)), has, 0, size)
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			t.Fatal(n, err)
		}
	}
	if open(new(bytes.Reader)) != nil {
		t.Error("a reader in memory is said to be a file")
	}
}

// fake says the same of everything, and must not be asked to drop any.
type fake bool

func (f fake) cached(int64, int64) bool { return bool(f) }

func (f fake) drop(int64, int64) { panic("dropped") }

func read(t *testing.T, f *os.File, content []byte) {
	t.Helper()
	var got bytes.Buffer
	r := NewReader(io.NewSectionReader(f, 0, size), f, 0, size)
	if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, struct{ io.Reader }{r}, make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), content) {
		t.Fatal("other bytes were read")
	}
}

// onDisk writes a file where there is a disk, which not every directory for
// temporary files is on.
func onDisk(t *testing.T) (*os.File, []byte) {
	t.Helper()
	content := bytes.Repeat([]byte("weights."), size/8+1)[:size]
	for _, dir := range []string{t.TempDir(), "/var/tmp", "."} {
		f, err := os.CreateTemp(dir, ".pagecache-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			f.Close()
			os.Remove(f.Name())
		})
		if _, err := f.Write(content); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		had := open(f).cached(0, size)
		open(f).drop(0, size)
		if had && !open(f).cached(0, size) {
			if _, err := f.ReadAt(make([]byte, size), 0); err != nil {
				t.Fatal(err)
			}
			return f, content
		}
	}
	t.Fatal("no file system here says what it has in memory and forgets it when asked")
	return nil, nil
}
