// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index_test

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/index"
)

// FuzzParse: whatever is accepted is encoded and parsed as the same, and its
// geometry holds what the code that moves bytes takes for granted. More seeds
// are in testdata/fuzz.
func FuzzParse(f *testing.F) {
	f.Add(frame(marshal(f, plain()), digests()))
	f.Add(frame(marshal(f, sealed()), digests()))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := index.Parse(b)
		if err != nil {
			if x != nil || !errors.Is(err, index.ErrFormat) {
				t.Fatalf("got %v, %v, want ErrFormat", x, err)
			}
			return
		}
		reencodes(t, x)
		var n int64
		for i, l := range x.Layers {
			g := x.Geometry(i)
			if g.Blob() != l.Size || g.Content < 0 {
				t.Fatalf("layer %d of %d bytes has %+v", i, l.Size, g)
			}
			if count := g.Count(); count > 0 {
				if offset, length := g.Stored(count - 1); offset < 0 || length < 0 || offset+length != l.Size {
					t.Fatalf("layer %d: the last segment has %d bytes at %d of %d", i, length, offset, l.Size)
				}
				if len(x.Digest(i, count-1)) != 32 || x.Ordinal(i, 0) != n {
					t.Fatalf("layer %d starts at segment %d, want %d", i, x.Ordinal(i, 0), n)
				}
				n += count
			}
		}
		if n != x.Segments() {
			t.Fatalf("%d segments, want %d", x.Segments(), n)
		}
		covers(t, x)
	})
}

// covers demands that the runs give every byte of every file one place.
func covers(t *testing.T, x *index.Index) {
	var files, pieces int64
	for _, file := range x.Files {
		files += file.Size
	}
	for i, list := range index.ByLayer(x.Files, len(x.Layers)) {
		var end int64
		for _, p := range list {
			if p.LayerOffset < end || p.Length < 0 || p.LayerOffset > x.Geometry(i).Content-p.Length || p.Layer != i {
				t.Fatalf("layer %d has the piece %+v after %d", i, p, end)
			}
			end = p.LayerOffset + p.Length
			pieces += p.Length
		}
	}
	if files != pieces {
		t.Fatalf("files have %d bytes and pieces %d", files, pieces)
	}
}

// FuzzCheckPaths takes a list of paths, one a line. Those that are accepted
// are local on this system, and all of them can be created in one directory.
func FuzzCheckPaths(f *testing.F) {
	f.Add(strings.Join(goodPaths, "\n"))
	f.Add("a\nA")
	f.Add("a\na/b")
	f.Add("../x\n/abs\nCON\n.modelsec")
	f.Fuzz(func(t *testing.T, list string) {
		paths := strings.Split(list, "\n")
		if len(paths) > 100 || index.CheckPaths(paths) != nil {
			return
		}
		root, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		for _, p := range paths {
			if !filepath.IsLocal(filepath.FromSlash(p)) || path.Clean(p) != p {
				t.Fatalf("%q is accepted and not local", p)
			}
			if err := root.MkdirAll(path.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			file, err := root.OpenFile(p, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if err != nil {
				t.Fatal(err)
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzParseFiles: a list of some files that is accepted lies inside the layers,
// without overlap, whatever its author meant.
func FuzzParseFiles(f *testing.F) {
	x, err := index.Parse(frame(marshal(f, sealed()), digests()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`[{"path":"a","role":"weight","size":1,"runs":[[0,0,0,1]]}]`))
	f.Add([]byte(`[],"files":[]`))
	f.Add([]byte(`[{"path":"a","role":"weight","size":2,"runs":[[0,0,0,1],[1,0,0,1]]}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := x.ParseFiles(b)
		if err != nil {
			if files != nil || !errors.Is(err, index.ErrFormat) {
				t.Fatalf("got %v, %v, want ErrFormat", files, err)
			}
			return
		}
		for layer, pieces := range index.ByLayer(files, len(x.Layers)) {
			var end int64
			for _, p := range pieces {
				if p.LayerOffset < end || p.Length < 0 || p.LayerOffset+p.Length > x.Geometry(layer).Content {
					t.Fatalf("layer %d: %+v after %d", layer, p, end)
				}
				end = p.LayerOffset + p.Length
			}
		}
	})
}
