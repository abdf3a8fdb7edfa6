// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package floe_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/floe"
	"github.com/modelsec/modelsec-go/internal/vectors"
)

// TestOpenPublishedVectors opens the known-answer tests that the four reference
// implementations publish, last segment first.
func TestOpenPublishedVectors(t *testing.T) {
	dir := vectors.Dir(t, "floe")
	files, err := filepath.Glob(filepath.Join(dir, "*_ct.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 17 {
		t.Fatalf("%d vectors in %s, want at least 17", len(files), dir)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), "_ct.txt")
		t.Run(name, func(t *testing.T) {
			message := readHex(t, file)
			want := readHex(t, strings.TrimSuffix(file, "_ct.txt")+"_pt.txt")
			// The vectors carry their segment length in the header only.
			p := floe.Params{Segment: int(binary.BigEndian.Uint32(message[2:])), Rotation: floe.Rotation}
			if strings.Contains(name, "rotation") {
				p.Rotation = 2
			}
			o, err := floe.NewOpener(new([floe.KeySize]byte), []byte("This is AAD"), message[:floe.HeaderSize], p)
			if err != nil {
				t.Fatal(err)
			}
			segments := slices.Collect(slices.Chunk(message[floe.HeaderSize:], p.Segment))
			plain := make([][]byte, len(segments))
			for i := len(segments) - 1; i >= 0; i-- {
				plain[i], err = o.Open(nil, segments[i], uint64(i), i == len(segments)-1)
				if err != nil {
					t.Fatalf("segment %d of %d: %v", i, len(segments), err)
				}
			}
			if got := bytes.Join(plain, nil); !bytes.Equal(got, want) {
				t.Errorf("got %d bytes of plaintext, want %d others", len(got), len(want))
			}
		})
	}
}

func readHex(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return b
}
