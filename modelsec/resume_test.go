// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// interrupted pulls from a registry that sends half of every layer, and
// returns what the destination is and where the files are staged.
func interrupted(t *testing.T, p *party, memory *registry.Memory) (dest, stage string) {
	t.Helper()
	dest = filepath.Join(t.TempDir(), "model")
	half := &evil{Opener: memory, content: firstHalf}
	_, err := p.client(half).Pull(t.Context(), tagged, dest, p.policy(), nil)
	refused(t, err, errTruncated)
	absent(t, dest)
	return dest, staged(t, dest)
}

// firstHalf cuts every layer but the index.
func firstHalf(d ocispec.Descriptor, b []byte) []byte {
	if strings.HasPrefix(d.MediaType, layerType) && d.MediaType != indexType {
		return b[:len(b)/2]
	}
	return b
}

// staged returns the one staging directory beside a destination.
func staged(t *testing.T, dest string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(filepath.Dir(dest), ".model.modelsec-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("staging directories: %q, %v", found, err)
	}
	return found[0]
}

// eachInterrupted runs a test on an interrupted pull of either profile.
func eachInterrupted(t *testing.T, run func(t *testing.T, p *party, src fstest.MapFS, memory *registry.Memory)) {
	p := newParty(t)
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			src := source(map[string]int{"model.safetensors": 8*segment + 123, "config.json": 300})
			push(t, p.client(memory), tagged, src, options())
			inBubble(t, func(t *testing.T) { run(t, p, src, memory) })
		})
	}
}

// TestResumedPullFetchesWhatIsMissing.
func TestResumedPullFetchesWhatIsMissing(t *testing.T) {
	eachInterrupted(t, func(t *testing.T, p *party, src fstest.MapFS, memory *registry.Memory) {
		dest, _ := interrupted(t, p, memory)
		good := &evil{Opener: memory}
		if _, err := p.client(good).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dest, src)
		if got, most := good.fetched.Load(), sizeOf(src)/2+4*(segment+32); got > most || got < sizeOf(src)/3 {
			t.Errorf("%d bytes were fetched to resume, want at most %d", got, most)
		}
		entries := must(os.ReadDir(filepath.Dir(dest)))
		if len(entries) != 1 {
			t.Errorf("%d entries beside the model", len(entries)-1)
		}
	})
}

// TestSpoiledStagingIsFetchedAgain changes what an interrupted pull left, in
// every way that somebody who may write the disk can.
func TestSpoiledStagingIsFetchedAgain(t *testing.T) {
	model := filepath.Join("files", "model.safetensors")
	for name, spoil := range map[string]func(stage string) error{
		"OneByte": func(stage string) error {
			return change(filepath.Join(stage, model), func(b []byte) []byte { b[3*segment+5] ^= 1; return b })
		},
		"Zeros": func(stage string) error {
			return change(filepath.Join(stage, model), func(b []byte) []byte { return make([]byte, len(b)) })
		},
		"SegmentsSwapped": func(stage string) error {
			return change(filepath.Join(stage, model), func(b []byte) []byte {
				first := bytes.Clone(b[:segment])
				copy(b, b[segment:2*segment])
				copy(b[segment:], first)
				return b
			})
		},
		"Journal": func(stage string) error {
			return change(filepath.Join(stage, "journal"), func(b []byte) []byte { return make([]byte, len(b)) })
		},
		"JournalSwapped": func(stage string) error {
			return change(filepath.Join(stage, "journal"), func(b []byte) []byte {
				if len(b) > 2 {
					return append(b[len(b)/2:], b[:len(b)/2]...)
				}
				return b
			})
		},
		"JournalGone": func(stage string) error { return os.Remove(filepath.Join(stage, "journal")) },
		"Link": func(stage string) error {
			if err := os.Remove(filepath.Join(stage, model)); err != nil {
				return err
			}
			return os.Symlink("/dev/zero", filepath.Join(stage, model))
		},
		"HardLink": func(stage string) error {
			return os.Link(filepath.Join(stage, model), filepath.Join(filepath.Dir(stage), "mine"))
		},
		"FileTooMany": func(stage string) error {
			return os.WriteFile(filepath.Join(stage, "files", "evil.safetensors"), []byte("x"), 0o644)
		},
		"OpenToOthers": func(stage string) error { return os.Chmod(stage, 0o777) },
	} {
		t.Run(name, func(t *testing.T) {
			eachInterrupted(t, func(t *testing.T, p *party, src fstest.MapFS, memory *registry.Memory) {
				dest, stage := interrupted(t, p, memory)
				if err := spoil(stage); err != nil {
					t.Fatal(err)
				}
				if _, err := p.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
					t.Fatal(err)
				}
				sameFiles(t, dest, src)
			})
		})
	}
}

// TestProofsOfAnotherPlaceAreNotBelieved: plaintext of another position, with
// what was noted of it, does not pass for this one. K11.
func TestProofsOfAnotherPlaceAreNotBelieved(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := fstest.MapFS{"a.safetensors": {Data: noise(1, 4*segment)}, "b.safetensors": {Data: noise(2, 4*segment)}}
	push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	inBubble(t, func(t *testing.T) {
		dest, stage := interrupted(t, p, memory)
		a, b := filepath.Join(stage, "files", "a.safetensors"), filepath.Join(stage, "files", "b.safetensors")
		first := must(os.ReadFile(a))
		err := change(b, func(b []byte) []byte { return append(bytes.Clone(first[:segment]), b[segment:]...) })
		if err == nil {
			err = change(filepath.Join(stage, "journal"), func(j []byte) []byte {
				copy(j[4*encrypt.SegmentOverhead:], j[:encrypt.SegmentOverhead])
				return j
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dest, src)
	})
}

// TestResumedPullOfSomeFilesFetchesWhatIsMissing: whoever has the keys of some
// files can prove those files.
func TestResumedPullOfSomeFilesFetchesWhatIsMissing(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	const name = "model.safetensors"
	src := source(map[string]int{name: 8*segment + 123, "other.safetensors": 300})
	d := push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	grantFiles(t, p, memory, d, friend, name)
	inBubble(t, func(t *testing.T) {
		dest := filepath.Join(t.TempDir(), "model")
		extract := func(e *evil) error {
			m, err := friend.client(e).OpenFiles(t.Context(), tagged, p.policy(), name)
			if err != nil {
				t.Fatal(err)
			}
			return errors.Join(m.Extract(t.Context(), dest, nil), m.Close())
		}
		refused(t, extract(&evil{Opener: memory, content: firstHalf}), errTruncated)
		good := &evil{Opener: memory}
		if err := extract(good); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dest, fstest.MapFS{name: src[name]})
		if got, most := good.fetched.Load(), sizeOf(src)/2+4*(segment+32); got > most {
			t.Errorf("%d bytes were fetched to resume, want at most %d", got, most)
		}
	})
}

// TestStagingOfAnotherArtifactIsLeftAlone: what was pulled halfway for one
// manifest is no help for another, even of the same files.
func TestStagingOfAnotherArtifactIsLeftAlone(t *testing.T) {
	eachInterrupted(t, func(t *testing.T, p *party, _ fstest.MapFS, memory *registry.Memory) {
		dest, stage := interrupted(t, p, memory)
		other := source(map[string]int{"model.safetensors": 8*segment + 123})
		push(t, p.client(memory), tagged, other, p.options(nil))
		if _, err := p.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
			t.Fatal(err)
		}
		sameFiles(t, dest, other)
		if _, err := os.Stat(stage); err != nil {
			t.Errorf("the staging directory of the other artifact: %v", err)
		}
	})
}

// TestDestinationThatHoldsSomethingIsLeftAlone.
func TestDestinationThatHoldsSomethingIsLeftAlone(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(nil))
	for name, make := range map[string]func(dest string) error{
		"File":         func(dest string) error { return os.WriteFile(dest, []byte("x"), 0o600) },
		"Link":         func(dest string) error { return os.Symlink(t.TempDir(), dest) },
		"DanglingLink": func(dest string) error { return os.Symlink("nowhere", dest) },
		"Directory": func(dest string) error {
			return os.MkdirAll(filepath.Join(dest, "old.safetensors"), 0o700)
		},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			dest := filepath.Join(base, "model")
			if err := make(dest); err != nil {
				t.Fatal(err)
			}
			before := listing(t, base)
			_, err := p.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil)
			refused(t, err, fs.ErrExist)
			if after := listing(t, base); after != before {
				t.Errorf("there is %s, was %s", after, before)
			}
		})
	}
	dest := filepath.Join(t.TempDir(), "model")
	if err := os.Mkdir(dest, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := p.client(memory).Pull(t.Context(), tagged, dest, p.policy(), nil); err != nil {
		t.Errorf("into an empty directory: %v", err)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		out = append(out, p+" "+d.Type().String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(out, "\n")
}

// TestSelectionPullsOnlyWhatWasAskedFor: fewer bytes, fewer files, and a
// selection of nothing is an error.
func TestSelectionPullsOnlyWhatWasAskedFor(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			push(t, p.client(memory), tagged, src, options())
			counting := &evil{Opener: memory}
			dest := filepath.Join(t.TempDir(), "model")
			if _, err := p.client(counting).Pull(t.Context(), tagged, dest, p.policy(), &modelsec.ExtractOptions{Include: []string{"*.safetensors"}, Exclude: []string{"model.*"}}); err != nil {
				t.Fatal(err)
			}
			sameFiles(t, dest, fstest.MapFS{"other.safetensors": src["other.safetensors"]})
			if n := counting.fetched.Load(); n > 4*segment {
				t.Errorf("%d bytes were fetched", n)
			}
			for _, o := range []*modelsec.ExtractOptions{{Include: []string{"nothing"}}, {Exclude: []string{"*"}}, {Include: []string{"["}}} {
				_, err := p.client(memory).Pull(t.Context(), tagged, dest+"2", p.policy(), o)
				refused(t, err, modelsec.ErrConfig)
				absent(t, dest+"2")
			}
		})
	}
}
