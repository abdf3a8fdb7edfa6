// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// FuzzParseManifest: what is not refused is a manifest that encoding/json reads
// in the same way.
func FuzzParseManifest(f *testing.F) {
	memory := registry.NewMemory()
	p := newParty(f)
	for _, options := range p.profiles() {
		d, err := p.client(memory).Push(f.Context(), repository, small(), options())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(openShelf(f, memory, repository).read(d))
	}
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"Layers":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		layers, indexed, err := modelsec.ParseManifest(b)
		if err != nil {
			if !errors.Is(err, modelsec.ErrFormat) {
				t.Errorf("got %v, want ErrFormat", err)
			}
			return
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(b, &m); err != nil || len(m.Layers) != layers || layers == 0 {
			t.Errorf("%d layers, another reader finds %d: %v", layers, len(m.Layers), err)
		}
		if indexed != (m.Annotations[indexKey] != "") {
			t.Errorf("indexed %v with annotations %v", indexed, m.Annotations)
		}
	})
}

// FuzzOpenArtifact opens artifacts whose index is any bytes, under a manifest
// that fits as well as one can: it is opened and read, or refused by type.
func FuzzOpenArtifact(f *testing.F) {
	for _, profile := range []index.Profile{index.Plain, index.Encrypted} {
		forgery := &forgery{by: newParty(f), profile: profile, layers: twoFiles()}
		forgery.index = func(b []byte) []byte {
			f.Add(bytes.Clone(b), profile == index.Encrypted)
			return b
		}
		forgery.push(f, registry.NewMemory())
	}
	p := newParty(f)
	p.signWithEd25519(f)
	f.Fuzz(func(t *testing.T, b []byte, encrypted bool) {
		memory := registry.NewMemory()
		artifact := &forgery{by: p, profile: index.Plain, layers: twoFiles(), index: func([]byte) []byte { return b }}
		if encrypted {
			artifact.profile = index.Encrypted
		}
		d := artifact.push(t, memory)
		// What is wrong with a segment is asked for again after a pause.
		inBubble(t, func(t *testing.T) { openAny(t, p.client(memory), pinned(d)) })
	})
}

func openAny(t *testing.T, c *modelsec.Client, ref string) {
	c.MemoryLimit = 1 << 20
	m, err := c.Open(t.Context(), ref, provenance.UnsafeAcceptUnsigned("fuzzing"))
	if err != nil {
		if !isOneOf(err, modelsec.ErrFormat, modelsec.ErrNoKey, modelsec.ErrLimit) {
			t.Errorf("got %v", err)
		}
		return
	}
	defer m.Close()
	for _, file := range m.Files() {
		r, err := m.ReaderAt(t.Context(), file.Name)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); err == nil && n != file.Size {
			t.Errorf("%s has %d bytes, read %d", file.Name, file.Size, n)
		}
	}
}

// fixedKey is the same key in every process.
type fixedKey string

func (k fixedKey) KeyID(b encrypt.Binding) string { return b.KeyID("fixed", []byte(k)) }

// FuzzRotateJournal: whatever a file holds, it is taken up as the journal of the
// same rotation, started anew where it is empty, or refused and left alone.
func FuzzRotateJournal(f *testing.F) {
	o := &modelsec.RotateOptions{Old: fixedKey("old"), New: []encrypt.Recipient{bogus{1}}}
	head := must(modelsec.TakeUpRotation(filepath.Join(f.TempDir(), "head"), nil, o))
	line := `{"digest":"sha256:` + strings.Repeat("ab", 32) + `","document":"sha256:` + strings.Repeat("cd", 32) + `"}` + "\n"
	for _, text := range []string{"", "x", string(head), string(head) + line, string(head) + line + line[:20], string(head) + "{}\n" + line, string(head[:len(head)-2])} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		after, err := modelsec.TakeUpRotation(filepath.Join(t.TempDir(), "journal"), b, o)
		switch {
		case err != nil && (!errors.Is(err, modelsec.ErrConfig) || !bytes.Equal(after, b)):
			t.Errorf("got %v, want ErrConfig and an untouched file", err)
		case err == nil && !bytes.HasPrefix(after, head):
			t.Errorf("taken up without its first line: %q", after)
		case err == nil && len(after) > len(head) && !bytes.HasPrefix(b, after):
			t.Errorf("lines were made up: %q", after)
		}
	})
}
