// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"strings"
	"testing"
	"unicode"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// nasty moves the cursor, recolours the terminal, by either of two codes, and
// turns text around.
const nasty = "a\x1b[2J\u009b31m\u202egnp.exe\u2066\r\n\x00"

// TestUnverifiedTextIsHarmless is K47: what an artifact says of itself reaches
// terminals, so nothing in it controls one.
func TestUnverifiedTextIsHarmless(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := foreign(t, p, memory, twoFiles(), func(m *ocispec.Manifest) {
		m.Layers[0].Annotations[pathKey] = nasty
		m.Layers[1].MediaType = "application/" + nasty
	})
	info, err := p.client(memory).Inspect(t.Context(), pinned(d))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range info.Files {
		harmless(t, f.Name)
		harmless(t, f.Role)
	}
	c := p.client(memory)
	c.MemoryLimit = 8 << 20
	harmless(t, pullFails(t, c, pinned(d), p.unindexed(), modelsec.ErrFormat).Error())

	for _, change := range []func(m *ocispec.Manifest){
		func(m *ocispec.Manifest) { m.Annotations[profileKey] = nasty },
		func(m *ocispec.Manifest) { m.Layers[0].Annotations[pathKey] = nasty },
		func(m *ocispec.Manifest) { m.Layers[0].MediaType = nasty },
		func(m *ocispec.Manifest) { m.ArtifactType = nasty },
	} {
		f := &forgery{by: p, profile: index.Plain, layers: twoFiles(), manifest: change}
		f.release = func(r *provenance.Release) { r.Profile = "plain" }
		f.push(t, memory)
		harmless(t, pullFails(t, p.client(memory), tagged, p.policy(), modelsec.ErrFormat, errPolicy).Error())
	}
}

// harmless fails where text holds what a terminal may act upon, or what makes
// it read otherwise than it is.
func harmless(t *testing.T, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
		t.Errorf("%q reaches the caller", text)
	}
}
