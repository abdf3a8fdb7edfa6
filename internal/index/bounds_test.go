// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/index"
)

func TestParseRefusesALengthThatIsNotThatOfTheHeader(t *testing.T) {
	valid := frame(marshal(t, plain()), digests())
	size := uint64(len(valid) - 8 - len(digests()))
	for name, n := range map[string]uint64{
		"0": 0, "1": 1, "one byte less": size - 1, "one byte more": size + 1, "the whole index": uint64(len(valid)),
		"the rest of the index": uint64(len(valid) - 8), "over 16 MiB": 16<<20 + 1, "2^31": 1 << 31, "2^63": 1 << 63, "2^64-1": 1<<64 - 1,
	} {
		b := bytes.Clone(valid)
		binary.LittleEndian.PutUint64(b, n)
		if _, err := index.Parse(b); !errors.Is(err, index.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

func TestParseRefusesEveryOtherLengthOfDigests(t *testing.T) {
	for name, h := range map[string]index.Header{"plain": plain(), "encrypted": sealed()} {
		for n := range 2 * len(digests()) {
			_, err := index.Parse(frame(marshal(t, h), make([]byte, n)))
			if ok := n == len(digests()); ok != (err == nil) || !ok && !errors.Is(err, index.ErrFormat) {
				t.Errorf("%s, %d bytes of digests: %v", name, n, err)
			}
		}
	}
}

func TestParseRefusesEveryPrefix(t *testing.T) {
	valid := frame(marshal(t, plain()), digests())
	for n := range valid {
		if _, err := index.Parse(valid[:n]); !errors.Is(err, index.ErrFormat) {
			t.Fatalf("%d of %d bytes: got %v, want ErrFormat", n, len(valid), err)
		}
	}
}

// reencodes demands that what was parsed is encoded and parsed as the same.
func reencodes(t *testing.T, x *index.Index) {
	t.Helper()
	b, err := x.Encode()
	if err != nil {
		t.Fatal(err)
	}
	y, err := index.Parse(b)
	if err != nil {
		t.Fatalf("%q was encoded and is refused: %v", b, err)
	}
	if !reflect.DeepEqual(x, y) {
		t.Fatalf("got %+v, want %+v", y, x)
	}
}

// TestEveryFlippedByteIsRefusedOrReencodes flips a bit that changes digits, the
// one that changes the case, and the one that leaves ASCII.
func TestEveryFlippedByteIsRefusedOrReencodes(t *testing.T) {
	for name, h := range map[string]index.Header{"plain": plain(), "encrypted": sealed()} {
		valid := frame(marshal(t, h), digests())
		refused := 0
		for i := range valid {
			for _, bit := range []byte{0x01, 0x20, 0x80} {
				b := bytes.Clone(valid)
				b[i] ^= bit
				x, err := index.Parse(b)
				if err == nil {
					reencodes(t, x)
				} else if refused++; x != nil || !errors.Is(err, index.ErrFormat) {
					t.Fatalf("%s, bit %#x of byte %d: got %v, %v, want ErrFormat", name, bit, i, x, err)
				}
			}
		}
		if refused < len(valid) {
			t.Errorf("%s: only %d flips of %d bytes were refused", name, refused, len(valid))
		}
	}
}

// TestParseAllocatesInProportionToTheIndex hands it headers that hold as many
// of one thing as fit, and ones that hold one large thing.
func TestParseAllocatesInProportionToTheIndex(t *testing.T) {
	const room = 16<<20 - 1000
	many := func(of string) string { return strings.TrimSuffix(strings.Repeat(of+",", room/(len(of)+1)), ",") }
	member := func(name, value string) string {
		return fmt.Sprintf(`{"formatVersion":1,"profile":"plain","segmentSize":65536,"layers":[],%q:%s}`, name, value)
	}
	for name, header := range map[string]string{
		"layers":             strings.Replace(member("files", `[]`), `"layers":[]`, `"layers":[`+many(`{"digest":"","size":0}`)+`]`, 1),
		"empty layers":       strings.Replace(member("files", `[]`), `"layers":[]`, `"layers":[`+many(`{}`)+`]`, 1),
		"empty files":        member("files", `[`+many(`{}`)+`]`),
		"runs of one file":   member("files", `[{"runs":[`+many(`[0,0,0,0]`)+`]}]`),
		"numbers of one run": member("files", `[{"runs":[[`+many(`0`)+`]]}]`),
		"empty runs":         member("files", `[{"runs":[`+many(`[]`)+`]}]`),
		"empty headers":      member("encryption", `{"headers":[`+many(`""`)+`]}`),
		"depth of lists":     member("files", strings.Repeat("[", room)),
		"depth of objects":   member("files", strings.Repeat(`{"":`, room/4)),
		"unknown members":    member("x", `0,`+many(`"x":0`)),
		"a long path":        member("files", `[{"path":"`+strings.Repeat("x", 1<<20)+`","size":0}]`),
		"a long sealed":      member("encryption", `{"sealed":"`+strings.Repeat("A", 1<<20)+`"}`),
		"a long digest":      strings.Replace(member("files", `[]`), `"layers":[]`, `"layers":[{"digest":"`+strings.Repeat("x", 1<<20)+`","size":0}]`, 1),
		"a long number":      member("x", strings.Repeat("9", room)),
		"quotes and braces":  member("x", `"`+strings.Repeat(`{\"`, room/3)+`"`),
		"an open string":     member("x", `"`+strings.Repeat(`,`, room)),
	} {
		t.Run(name, func(t *testing.T) {
			b := frame(header, nil)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := index.Parse(b)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, index.ErrFormat) {
				t.Errorf("got %v, want ErrFormat", err)
			}
			if n := len(err.Error()); n > 1000 {
				t.Errorf("the message has %d bytes", n)
			}
			// strictjson reads the document through a buffer that doubles, and
			// long strings are held twice.
			if n := after.TotalAlloc - before.TotalAlloc; n > 9*uint64(len(b)) {
				t.Errorf("%d MiB were allocated for %d MiB", n>>20, len(b)>>20)
			}
		})
	}
}

// manyFiles is a header with n files of one run each in one layer.
func manyFiles(n int) index.Header {
	h := plain()
	h.Layers = []index.Layer{layer("a", segment)}
	h.Files = make([]index.File, n)
	for i := range h.Files {
		h.Files[i] = index.File{Path: fmt.Sprintf("d%d/%d", i%100, i), Role: "weight", Runs: []index.Run{{0, 0, 0, 0}}}
	}
	return h
}

func TestCountsAreAcceptedUpToTheirBound(t *testing.T) {
	runs := func(n int) index.Header {
		h := manyFiles(1)
		h.SegmentSize, h.Layers[0].Size = 4<<20, 4<<20
		f := &h.Files[0]
		f.Size, f.Runs = int64(n), make([]index.Run, n)
		for i := range f.Runs {
			f.Runs[i] = index.Run{FileOffset: int64(i), LayerOffset: int64(n - 1 - i), Length: 1}
		}
		return h
	}
	layers := func(n int) index.Header {
		h := manyFiles(n)
		h.Layers = make([]index.Layer, n)
		for i := range h.Layers {
			h.Layers[i] = layer("a", 1)
			h.Files[i].Size, h.Files[i].Runs = 1, []index.Run{{0, i, 0, 1}}
		}
		return h
	}
	for name, c := range map[string]struct {
		of              func(n int) index.Header
		limit, segments int // segments at the limit, and one more of the layers above
	}{
		"files": {manyFiles, 65_536, 1}, "runs": {runs, 131_072, 1}, "layers": {layers, 4_096, 4_096},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := index.Parse(frame(marshal(t, c.of(c.limit)), make([]byte, 32*c.segments))); err != nil {
				t.Errorf("%d: %v", c.limit, err)
			}
			over := c.of(c.limit + 1)
			if name == "layers" {
				c.segments++
			}
			if _, err := index.New(over, make([]byte, 32*c.segments)); !errors.Is(err, index.ErrFormat) {
				t.Errorf("%d: got %v, want ErrFormat", c.limit+1, err)
			}
		})
	}
}

// TestMarksInAPathAreNoElements: a path may hold quotes, brackets and commas,
// more than elements may be in a header.
func TestMarksInAPathAreNoElements(t *testing.T) {
	h := manyFiles(12_000)
	for i := range h.Files {
		h.Files[i].Path += `"` + strings.Repeat(`,{[`, 80)
	}
	if _, err := index.Parse(frame(marshal(t, h), make([]byte, 32))); err != nil {
		t.Error(err)
	}
}

func TestAnIndexOver64MiBIsRefused(t *testing.T) {
	h := manyFiles(1)
	const count = 2<<20 + 1
	h.Layers[0].Size, h.Files[0].Size, h.Files[0].Runs[0].Length = count*segment, count*segment, count*segment
	x, err := index.New(h, make([]byte, 32*count))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Encode(); !errors.Is(err, index.ErrFormat) {
		t.Errorf("Encode: got %v, want ErrFormat", err)
	}
	if _, err := index.Parse(frame(marshal(t, h), make([]byte, 32*count))); !errors.Is(err, index.ErrFormat) {
		t.Errorf("Parse: got %v, want ErrFormat", err)
	}
}

func TestEncodeRefusesAHeaderOver16MiB(t *testing.T) {
	h := sealed()
	h.Encryption.Sealed = make([]byte, 13<<20)
	x, err := index.New(h, digests())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Encode(); !errors.Is(err, index.ErrFormat) {
		t.Errorf("got %v, want ErrFormat", err)
	}
}
