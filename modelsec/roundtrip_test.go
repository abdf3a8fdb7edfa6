// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// shapes are models that are cut in different ways.
func shapes() map[string]fstest.MapFS {
	many := make(map[string]int)
	for i := range 310 {
		many[fmt.Sprintf("tokens/%03d.json", i)] = i * 3
	}
	many["model.safetensors"] = segment + 1
	many[strings.Repeat("long/", 30)+"name that needs a PAX record.json"] = 33
	equal := source(map[string]int{"a.safetensors": 1000})
	equal["b.safetensors"] = equal["a.safetensors"]
	equal["empty.json"], equal["none.txt"] = &fstest.MapFile{}, &fstest.MapFile{}
	return map[string]fstest.MapFS{
		"Empty":   source(map[string]int{"model.safetensors": 0}),
		"OneByte": source(map[string]int{"model.safetensors": 1}),
		"Borders": source(map[string]int{
			"a.bin": segment - 1, "b.bin": segment, "c.bin": segment + 1, "d.bin": 2 * segment, "e.bin": 3*segment - 1,
		}),
		"Nested": source(map[string]int{"x/y/z/model.bin": 5, "x/y/README.md": 6, "x/run.py": 7, "data.parquet": 8, "ünïcode/模型.bin": 9}),
		"Many":   source(many),
		"Equal":  equal,
	}
}

// places are where artifacts are kept.
func places(t *testing.T) map[string]func(t *testing.T) (registry.Opener, string) {
	t.Helper()
	return map[string]func(t *testing.T) (registry.Opener, string){
		"Memory": func(*testing.T) (registry.Opener, string) { return registry.NewMemory(), repository },
		"Layout": func(t *testing.T) (registry.Opener, string) {
			return remote(), "oci:" + filepath.Join(t.TempDir(), "layout")
		},
		"HTTP": func(t *testing.T) (registry.Opener, string) { return remote(), serve(t, ociserver.New()) },
		"OldHTTP": func(t *testing.T) (registry.Opener, string) {
			s := ociserver.New()
			s.NoReferrers = true
			return remote(), serve(t, s)
		},
	}
}

// TestWhatIsPulledIsWhatWasPushed.
func TestWhatIsPulledIsWhatWasPushed(t *testing.T) {
	p := newParty(t)
	for place, open := range places(t) {
		for shape, src := range shapes() {
			for profile, options := range p.profiles() {
				t.Run(place+"/"+shape+"/"+profile, func(t *testing.T) {
					if place == "OldHTTP" && shape != "Borders" {
						return // differs from HTTP in listings alone
					}
					o, name := open(t)
					c := p.client(o)
					options := options()
					options.Name = "team/llama"
					if shape == "Borders" {
						options.LayerSize = 2 * segment
					}
					push(t, c, name+":v3", src, options)
					dest := filepath.Join(t.TempDir(), "model")
					report, err := c.Pull(t.Context(), name+":v3", dest, p.policy().For("localhost/team/llama"), nil)
					if err != nil {
						t.Fatal(err)
					}
					sameFiles(t, dest, src)
					if !report.Allowed || report.LayerDigests != "not compared" {
						t.Errorf("the report says %+v", report)
					}
					if report, err := c.VerifyDeep(t.Context(), name+":v3", p.policy().For("localhost/team/llama")); err != nil || report.LayerDigests != "compared" {
						t.Errorf("VerifyDeep: %v", err)
					}
				})
			}
		}
	}
}

// TestPlainManifestIsDeterministic: the same files make the same manifest,
// whoever pushes them, wherever and when.
func TestPlainManifestIsDeterministic(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "golden.txt"))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	all := shapes()
	for _, shape := range []string{"Empty", "OneByte", "Borders", "Nested", "Many", "Equal"} {
		p := newParty(t)
		d := push(t, p.client(registry.NewMemory()), tagged, all[shape], &modelsec.PushOptions{Signer: p.signer})
		fmt.Fprintf(&got, "%s %s\n", shape, d.Digest)
	}
	if got.String() != string(golden) {
		t.Errorf("manifests changed, which breaks signatures over them; got\n%s", &got)
	}
}

// TestEncryptedManifestIsNeverTheSame.
func TestEncryptedManifestIsNeverTheSame(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	s := openShelf(t, memory, repository)
	seen := make(map[string]bool)
	for range 3 {
		for digest, piece := range s.everything(push(t, p.client(memory), repository, small(), p.options(p.recipients()))) {
			if piece.what == "layer" && seen[string(digest)] {
				t.Error("two pushes have a layer in common")
			}
			seen[string(digest)] = true
		}
	}
}

// TestEncryptedArtifactTellsNothing looks in everything that the registry has
// for names, roles and digests of the model. K32.
func TestEncryptedArtifactTellsNothing(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := source(map[string]int{"secret-name.safetensors": segment + 5, "hidden/tokenizer.json": 400, "run-me.py": 50})
	o := p.options(p.recipients())
	o.Config = &modelsec.Config{Name: "secret-config", Family: "secret-family", Architecture: "secret-architecture", Licenses: []string{"secret-licence"}}
	d := push(t, p.client(memory), tagged, src, o)
	words := []string{"secret", "safetensors", "tokenizer", "run-me", "hidden", "weight.config", `"code"`, ".py"}
	for name, f := range src {
		sum := digestOf(f.Data).Encoded()
		raw := must(hex.DecodeString(sum))
		words = append(words, name, sum, string(raw), string(f.Data[:32]))
	}
	for _, piece := range openShelf(t, memory, repository).everything(d) {
		for _, w := range words {
			if bytes.Contains(piece.b, []byte(w)) {
				t.Errorf("the %s holds %q", piece.what, w)
			}
		}
	}
}

// TestLayersStandInOrder is FORMAT.md §2.2.
func TestLayersStandInOrder(t *testing.T) {
	memory := registry.NewMemory()
	src := source(map[string]int{"z.safetensors": 1, "a/b.safetensors": 2, "B.safetensors": 3, "config.json": 4, "a/c.json": 5, "x.py": 6, "README.md": 7, "d.csv": 8})
	d := push(t, &modelsec.Client{Registry: memory}, tagged, src, nil)
	var got []string
	for _, l := range openShelf(t, memory, repository).manifest(d).Layers {
		got = append(got, l.Annotations[pathKey])
	}
	want := []string{"B.safetensors", "z.safetensors", "a/b.safetensors", "config.json", "a/c.json", "x.py", "README.md", "d.csv", indexName}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestPlainLayersAreFiles: what other tools find in a plain artifact, by its
// annotations alone, is the model.
func TestPlainLayersAreFiles(t *testing.T) {
	memory := registry.NewMemory()
	src := shapes()["Nested"]
	d := push(t, &modelsec.Client{Registry: memory}, tagged, src, nil)
	s := openShelf(t, memory, repository)
	m := s.manifest(d)
	for _, l := range m.Layers[:len(m.Layers)-1] {
		name := l.Annotations[pathKey]
		if src[name] == nil || !bytes.Equal(s.read(l), src[name].Data) || l.Annotations[ocispec.AnnotationTitle] != name {
			t.Errorf("layer %q is not the file of that name", name)
		}
		var meta struct {
			Name string
			Size int64
		}
		if err := json.Unmarshal([]byte(l.Annotations["org.cncf.model.file.metadata+json"]), &meta); err != nil || meta.Size != l.Size || meta.Name != name[strings.LastIndexByte(name, '/')+1:] {
			t.Errorf("metadata of %q: %+v, %v", name, meta, err)
		}
	}
}

// TestReportNamesThePolicyAndTheManifest.
func TestReportNamesThePolicyAndTheManifest(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, small(), p.options(nil))
	report, err := p.client(memory).Verify(t.Context(), tagged, p.policy())
	if err != nil {
		t.Fatal(err)
	}
	if report.Manifest != d.Digest || report.Reference != repository || report.Tag != "v3" || report.Rollback != "unprotected" || report.Policy == "" {
		t.Errorf("got %+v", report)
	}
	report, err = p.client(memory).Verify(t.Context(), tagged, newParty(t).policy())
	refused(t, err, errPolicy)
	if report == nil || report.Allowed || len(report.Refused()) == 0 || report.Refused()[0].Needs == "" {
		t.Errorf("a refusal says too little: %+v", report)
	}
	report, err = p.client(memory).Verify(t.Context(), tagged, provenance.UnsafeAcceptUnsigned("a test"))
	if err != nil || report.Unsafe != "a test" {
		t.Errorf("got %+v, %v", report, err)
	}
}
