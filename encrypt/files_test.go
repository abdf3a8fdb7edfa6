// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/opencontainers/go-digest"
)

const filesJSON = `[{"path":"lora.safetensors","role":"weight","size":5,"runs":[[0,7,0,5]]}]`

// unwrapFiles opens the first entry of scope files that id opens.
func unwrapFiles(t *testing.T, entries []encrypt.Stanza, b encrypt.Binding, now time.Time, id encrypt.Identity) (files *encrypt.FileKeys, err error) {
	t.Helper()
	err = encrypt.Unwrap(t.Context(), entries, b, now, func(k encrypt.PartKeys, _ encrypt.Stanza) bool {
		if key, ok := k.(*encrypt.Key); ok {
			key.Close()
			return false
		}
		files = k.(*encrypt.FileKeys)
		return true
	}, id)
	return files, err
}

func TestFilesScopeOpensItsLayersOnly(t *testing.T) {
	id := generate(t, "")
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapFiles(t.Context(), key, b, json.RawMessage(filesJSON), []uint32{7, 2}, id.Recipient(), generate(t, "").Recipient())
	if err != nil {
		t.Fatal(err)
	}
	g := &encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest, Recipients: stanzas}
	doc, err := g.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if g, err = encrypt.ParseGrant(doc); err != nil {
		t.Fatal(err)
	}
	if _, err := encrypt.UnwrapKey(t.Context(), g.Recipients, b, now, id); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("the whole artifact: error %v, want ErrNoKey", err)
	}
	files, err := unwrapFiles(t, g.Recipients, b, now, id)
	if err != nil {
		t.Fatal(err)
	}
	if got := files.Layers(); !slices.Equal(got, []uint32{2, 7}) || string(files.Files()) != filesJSON {
		t.Errorf("layers %v, files %s", got, files.Files())
	}
	for layer := range uint32(9) {
		p := encrypt.Part{ArtifactID: b.ArtifactID, Layer: layer, Length: 5, SegmentSize: segmentSize}
		s, header := newSealer(t, key, p)
		stored, err := s.SealSegment(nil, 0, []byte("hello"))
		if err != nil {
			t.Fatal(err)
		}
		o, err := encrypt.NewPartOpener(files, p, header)
		if layer != 2 && layer != 7 {
			if !errors.Is(err, encrypt.ErrNoKey) {
				t.Errorf("layer %d: error %v, want ErrNoKey", layer, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("layer %d: %v", layer, err)
			continue
		}
		if got, err := o.OpenSegment(nil, 0, stored); err != nil || string(got) != "hello" {
			t.Errorf("layer %d: %q, %v", layer, got, err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v", files, files, files); strings.Count(text, "redacted") != 3 {
		t.Errorf("formats as %s", text)
	}
	other := encrypt.Part{ArtifactID: [16]byte{1}, Layer: 2, SegmentSize: segmentSize}
	if _, err := encrypt.NewPartOpener(files, other, make([]byte, encrypt.HeaderSize)); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("another artifact: error %v, want ErrNoKey", err)
	}
	files.Close()
	_, header := newSealer(t, key, encrypt.Part{ArtifactID: b.ArtifactID, Layer: 2, SegmentSize: segmentSize})
	if _, err := encrypt.NewPartOpener(files, encrypt.Part{ArtifactID: b.ArtifactID, Layer: 2, SegmentSize: segmentSize}, header); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("after Close: error %v, want fs.ErrClosed", err)
	}
}

func TestFilesScopeIsBound(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapFiles(t.Context(), key, b, json.RawMessage(filesJSON), []uint32{7}, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	for at := range stanzas[0].Sealed {
		s := stanzas[0]
		s.Sealed = bytes.Clone(s.Sealed)
		s.Sealed[at] ^= 1
		if _, err := unwrapFiles(t, []encrypt.Stanza{s}, b, now, id); !errors.Is(err, encrypt.ErrDecrypt) {
			t.Fatalf("byte %d of the sealed list flipped: error %v, want ErrDecrypt", at, err)
		}
	}
	other := b
	other.Manifest = digest.FromString("another")
	if _, err := unwrapFiles(t, stanzas, other, now, id); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("another manifest: error %v, want ErrNoKey", err)
	}
	// The sealed list of another grant for the same artifact has another key.
	again, err := encrypt.WrapFiles(t.Context(), key, b, json.RawMessage(filesJSON), []uint32{7}, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	again[0].Sealed = stanzas[0].Sealed
	if _, err := unwrapFiles(t, again, b, now, id); !errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("the list of another grant: error %v, want ErrDecrypt", err)
	}
}

func TestWrapFilesRefuses(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	key, b := encrypttest.NewBinding(t)
	noManifest := b
	noManifest.Manifest = ""
	for name, test := range map[string]struct {
		b      encrypt.Binding
		files  string
		layers []uint32
	}{
		"no layers":       {b, filesJSON, nil},
		"a layer twice":   {b, filesJSON, []uint32{1, 1}},
		"layer 4096":      {b, filesJSON, []uint32{4096}},
		"no files":        {b, "", []uint32{1}},
		"files no list":   {b, "{}", []uint32{1}},
		"files null":      {b, "null", []uint32{1}},
		"files not JSON":  {b, "[", []uint32{1}},
		"no manifest":     {noManifest, filesJSON, []uint32{1}},
		"key twice in it": {b, `[{"path":"a","path":"b"}]`, []uint32{1}},
	} {
		if _, err := encrypt.WrapFiles(t.Context(), key, test.b, json.RawMessage(test.files), test.layers, id.Recipient()); err == nil {
			t.Errorf("%s: wrapped", name)
		}
	}
}
