// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/cryptotest"

	"github.com/modelsec/modelsec-go/internal/floe"
)

var update = flag.Bool("update", false, "write the vectors in testdata again")

// TestGenerateVectors writes the vectors when asked to:
//
//	go test ./encrypt -run TestGenerateVectors -update
//
// The same Go release writes the same bytes. Another may draw its random bytes
// differently, which is why no test compares; TestVectors reads what is there.
func TestGenerateVectors(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	if err := os.RemoveAll("testdata/vectors"); err != nil {
		t.Fatal(err)
	}
	cryptotest.SetGlobalRandom(t, 1)
	generateParts(t)
	cryptotest.SetGlobalRandom(t, 2)
	generateGrants(t)
	cryptotest.SetGlobalRandom(t, 3)
	generateKeyFiles(t)
	cryptotest.SetGlobalRandom(t, 4)
	generateScoped(t)
}

// emit writes one vector: header lines, an empty line, the body.
func emit(t *testing.T, set, name, expect string, header [][2]string, body string) {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "expect: %s\n", expect)
	for _, h := range header {
		fmt.Fprintf(&b, "%s: %s\n", h[0], h[1])
	}
	b.WriteString("\n" + body)
	emitFile(t, set, name+".txt", b.Bytes())
}

func emitFile(t *testing.T, set, name string, data []byte) {
	t.Helper()
	dir := filepath.Join("testdata/vectors", set)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err == nil {
		t.Fatalf("%s is written twice", path)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// sealedPart is a layer to take pieces of.
type sealedPart struct {
	part     Part
	header   []byte
	segments [][]byte
}

// sealPart seals content; marks[k] overrides the final flag of segment k, which
// only the internal package lets anybody do.
func sealPart(t *testing.T, k *Key, p Part, content []byte, marks map[int]bool) sealedPart {
	t.Helper()
	key, err := k.partKey(p.ArtifactID, p.Layer)
	if err != nil {
		t.Fatal(err)
	}
	s, err := floe.NewSealer(&key, p.aad(), p.params())
	if err != nil {
		t.Fatal(err)
	}
	header := s.Header()
	out := sealedPart{part: p, header: header[:]}
	for i := range int(p.Segments()) {
		n, final, _ := p.plain(int64(i))
		if mark, ok := marks[i]; ok {
			final = mark
		}
		segment, err := s.Seal(nil, content[i*p.SegmentSize:i*p.SegmentSize+n], uint64(i), final)
		if err != nil {
			t.Fatal(err)
		}
		out.segments = append(out.segments, segment)
	}
	return out
}

func generateParts(t *testing.T) {
	const size = 1 << 16
	k := NewKey()
	defer k.Close()
	p := Part{Layer: 1, Length: 2*size + 100, SegmentSize: size}
	rand.Read(p.ArtifactID[:])
	content := make([]byte, 2*size+100)
	for i := range content {
		content[i] = byte(i % 251)
	}
	var dek []byte
	k.dek.use(func(b []byte) error { dek = bytes.Clone(b); return nil })

	good := sealPart(t, k, p, content, nil)
	emitFile(t, "part", "good.bin", bytes.Join(good.segments, nil))
	again := sealPart(t, k, p, content, nil)
	emitFile(t, "part", "again0.bin", again.segments[0])
	sibling := p
	sibling.Layer = 2
	other := sealPart(t, k, sibling, content, nil)
	emitFile(t, "part", "layer2-0.bin", other.segments[0])
	early := sealPart(t, k, p, content, map[int]bool{1: true})
	emitFile(t, "part", "inner-as-final0.bin", early.segments[0])
	emitFile(t, "part", "inner-as-final1.bin", early.segments[1])

	const s0, s1 = "good.bin 0 65568", "good.bin 65568 65568"
	const s2 = "good.bin 131136 132"
	emitPart := func(name, expect, comment string, p Part, header []byte, stored ...string) {
		t.Helper()
		h := [][2]string{
			{"comment", comment}, {"dek", hex.EncodeToString(dek)}, {"artifact-id", hex.EncodeToString(p.ArtifactID[:])},
			{"layer", fmt.Sprint(p.Layer)}, {"length", fmt.Sprint(p.Length)}, {"segment-size", fmt.Sprint(p.SegmentSize)},
			{"header", hex.EncodeToString(header)},
		}
		for _, s := range stored {
			h = append(h, [2]string{"stored", s})
		}
		emit(t, "part", name, expect, h, "")
	}
	with := func(change func(*Part)) Part { q := p; change(&q); return q }

	emitPart("good", "success", "two full segments and a final one of 100 bytes", p, good.header, s0, s1, s2)
	for _, n := range []int{0, 1, 100} {
		q := with(func(q *Part) { q.Length = int64(n) })
		one := sealPart(t, k, q, content, nil)
		emitPart(fmt.Sprintf("good-%d", n), "success", fmt.Sprintf("a layer of %d bytes", n), q, one.header, "hex "+hex.EncodeToString(one.segments[0]))
	}
	emitPart("swapped", "segment failure", "segments 0 and 1 change places", p, good.header, s1, s0, s2)
	emitPart("duplicated", "segment failure", "segment 0 stands in for segment 1", p, good.header, s0, s0, s2)
	emitPart("dropped", "length failure", "segment 1 is missing", p, good.header, s0, s2)
	emitPart("dropped-shorter", "header failure", "segment 1 is missing and the length says so", with(func(q *Part) { q.Length -= size }), good.header, s0, s2)
	emitPart("repeated", "length failure", "segment 1 is there twice", p, good.header, s0, s1, s1, s2)
	emitPart("truncated", "length failure", "the last byte is missing", p, good.header, s0, s1, "good.bin 131136 131")
	emitPart("truncated-at-border", "length failure", "the final segment is missing", p, good.header, s0, s1)
	emitPart("extended", "length failure", "a byte follows the final segment", p, good.header, s0, s1, s2, "hex 00")
	emitPart("header-of-sibling", "header failure", "the header is the one of layer 2 of the same artifact", p, other.header, s0, s1, s2)
	emitPart("header-of-other-attempt", "segment failure", "the header is the one of another attempt to seal the layer", p, again.header, s0, s1, s2)
	emitPart("segment-of-sibling", "segment failure", "segment 0 is the one of layer 2 of the same artifact", p, good.header, "layer2-0.bin 0 65568", s1, s2)
	emitPart("segment-of-other-attempt", "segment failure", "segment 0 is the one of another attempt to seal the layer", p, good.header, "again0.bin 0 65568", s1, s2)
	emitPart("inner-marked-final", "segment failure", "segment 1 is sealed with the final flag, word and flag alike", p, early.header, "inner-as-final0.bin 0 65568", "inner-as-final1.bin 0 65568", "hex "+hex.EncodeToString(early.segments[2]))
	emitPart("inner-with-final-word", "segment failure", "the word of segment 0 is its length, the tag is right", p, good.header, "hex 00010020", "good.bin 4 65564", s1, s2)
	emitPart("final-with-inner-word", "segment failure", "the word of the final segment is ffffffff, the tag is right", p, good.header, s0, s1, "hex ffffffff", "good.bin 131140 128")
	emitPart("final-with-other-length", "segment failure", "the word of the final segment is one too high, the tag is right", p, good.header, s0, s1, "hex 00000085", "good.bin 131140 128")
	flipped := func(at int) string {
		return fmt.Sprintf("hex %02x", good.segments[2][at]^1)
	}
	emitPart("iv-bit", "segment failure", "a bit of the IV of the final segment is flipped", p, good.header, s0, s1, "good.bin 131136 4", flipped(4), "good.bin 131141 127")
	emitPart("ciphertext-bit", "segment failure", "a bit of the ciphertext of the final segment is flipped", p, good.header, s0, s1, "good.bin 131136 50", flipped(50), "good.bin 131187 81")
	emitPart("tag-bit", "segment failure", "a bit of the tag of the final segment is flipped", p, good.header, s0, s1, "good.bin 131136 131", flipped(131))
	for name, at := range map[string]int{"aead": 0, "kdf": 1, "segment-length": 5, "iv-length": 9, "iv": 10, "tag": 73} {
		h := bytes.Clone(good.header)
		h[at] ^= 1
		emitPart("header-"+name+"-bit", "header failure", fmt.Sprintf("a bit of byte %d of the header is flipped", at), p, h, s0, s1, s2)
	}
	emitPart("header-short", "header failure", "the header lacks its last byte", p, good.header[:73], s0, s1, s2)
	emitPart("other-artifact", "header failure", "the artifactId is another", with(func(q *Part) { q.ArtifactID[0] ^= 1 }), good.header, s0, s1, s2)
	emitPart("other-layer", "header failure", "the ordinal is another", with(func(q *Part) { q.Layer = 0 }), good.header, s0, s1, s2)
	emitPart("other-length", "header failure", "the length is one less", with(func(q *Part) { q.Length-- }), good.header, s0, s1, "good.bin 131136 131")
	emitPart("other-segment-size", "header failure", "the segment size is 262144", with(func(q *Part) { q.SegmentSize = 1 << 18 }), good.header, s0, s1, s2)
	emitPart("segment-size-not-allowed", "geometry failure", "the segment size is 131072, which the format does not have", with(func(q *Part) { q.SegmentSize = 1 << 17 }), good.header, s0, s1, s2)

	// FLOE allows an empty final segment behind a full one; the format does not.
	q := with(func(q *Part) { q.Length = size })
	key, _ := k.partKey(q.ArtifactID, q.Layer)
	s, err := floe.NewSealer(&key, q.aad(), q.params())
	if err != nil {
		t.Fatal(err)
	}
	full, _ := s.Seal(nil, content[:size], 0, false)
	empty, _ := s.Seal(nil, nil, 1, true)
	header := s.Header()
	emitFile(t, "part", "empty-final0.bin", full)
	emitPart("empty-final", "length failure", "an empty final segment follows a full one", q, header[:], "empty-final0.bin 0 65568", "hex "+hex.EncodeToString(empty))
	emitPart("full-segment-not-final", "segment failure", "the only segment is sealed without the final flag", q, header[:], "empty-final0.bin 0 65568")
}
