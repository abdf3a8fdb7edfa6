// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
)

// ErrPartial means that the client may open some files of the artifact, and was
// asked for all of it: name the files, see [Client.OpenFiles].
var ErrPartial = errors.New("the grants for this client open only some files")

// keyring gathers what grants give until it opens what was asked for.
type keyring struct {
	content *content
	want    []string // empty: everything
	whole   *encrypt.Key
	entry   encrypt.Stanza // that held whole
	some    []fileGrant
	keyIDs  []string
	errs    []error
}

// fileGrant is one grant of some files.
type fileGrant struct {
	keys  *encrypt.FileKeys
	files []index.File
}

// take adds the keys of one entry and reports whether that is enough.
func (r *keyring) take(keys encrypt.PartKeys, s encrypt.Stanza) (enough bool) {
	switch k := keys.(type) {
	case *encrypt.Key:
		r.whole, r.entry, r.keyIDs = k, s, []string{s.KeyID}
		return true
	case *encrypt.FileKeys:
		files, err := r.content.index.ParseFiles(k.Files())
		if err != nil {
			r.errs = append(r.errs, fmt.Errorf("grant entry %s: %w: %w", s.KeyID, ErrFormat, err))
			k.Close()
			return false
		}
		r.some = append(r.some, fileGrant{k, files})
		r.keyIDs = append(r.keyIDs, s.KeyID)
	}
	return r.missing() == ""
}

// missing names a file that was asked for and that no grant opens.
func (r *keyring) missing() string {
	for _, name := range r.want {
		if _, f := r.grantOf(name); f == nil {
			return name
		}
	}
	return ""
}

// grantOf finds the grant of a file. All are signed by somebody whom the policy
// lets grant, so the first that has it is as good as any.
func (r *keyring) grantOf(name string) (*encrypt.FileKeys, *index.File) {
	for _, g := range r.some {
		for i := range g.files {
			if g.files[i].Path == name {
				return g.keys, &g.files[i]
			}
		}
	}
	return nil, nil
}

// names lists what the grants of some files open.
func (r *keyring) names() (names []string) {
	for _, g := range r.some {
		for _, f := range g.files {
			names = append(names, f.Path)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// unlock gives the content the files asked for and openers of their layers.
func (r *keyring) unlock(b encrypt.Binding) error {
	t := r.content
	openers := make([]*encrypt.PartOpener, len(t.layers))
	if r.whole != nil {
		plain, err := r.whole.OpenIndex(b.ArtifactID, t.index.Encryption.Sealed)
		if err != nil {
			return fmt.Errorf("sealed file list: %w", err)
		}
		files, err := t.index.ParseSealed(plain)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		t.setFiles(files)
		for i := range t.layers {
			if openers[i], err = t.opener(r.whole, b, i); err != nil {
				return err
			}
		}
		t.openers = openers
		return nil
	}
	var files []index.File
	for _, name := range slices.Compact(slices.Sorted(slices.Values(r.want))) {
		keys, f := r.grantOf(name)
		files = append(files, *f)
		for _, run := range f.Runs {
			if openers[run.Layer] != nil {
				continue
			}
			var err error
			if openers[run.Layer], err = t.opener(keys, b, run.Layer); err != nil {
				return err
			}
		}
	}
	if err := t.index.CheckSome(files); err != nil {
		return fmt.Errorf("%w: the grants contradict each other: %w", ErrFormat, err)
	}
	slices.SortStableFunc(files, func(a, b index.File) int { return cmp.Compare(a.Runs[0].Layer, b.Runs[0].Layer) })
	t.setFiles(files)
	t.openers = openers
	return nil
}

// close wipes the keys of some files; openers stay usable. The data key is the
// model's.
func (r *keyring) close() {
	for _, g := range r.some {
		g.keys.Close()
	}
}

// only restricts the content to the files named. K16: a name that is not there
// is an error, never a smaller model.
func (t *content) only(names []string) error {
	if len(names) == 0 {
		return nil
	}
	t.partial = true
	for _, name := range names {
		if !slices.ContainsFunc(t.files, func(f index.File) bool { return f.Path == name }) {
			return fmt.Errorf("%w: the model has no file %q", fs.ErrNotExist, clip(name))
		}
	}
	var files []index.File
	for _, f := range t.files {
		if slices.Contains(names, f.Path) {
			files = append(files, f)
		}
	}
	t.setFiles(files)
	return nil
}

// fileScope lists the files named as a grant does, and the layers that hold
// them. Whoever gets the key of a layer can open all of it, so a layer that
// holds bytes of other files cannot be granted.
func (t *content) fileScope(names []string) (json.RawMessage, []uint32, error) {
	granted := make(map[int]bool)
	var files []index.File
	var layers []uint32
	for _, name := range names {
		i := slices.IndexFunc(t.files, func(f index.File) bool { return f.Path == name })
		if i < 0 {
			return nil, nil, fmt.Errorf("%w: the model has no file %q", ErrConfig, clip(name))
		}
		if granted[i] {
			continue
		}
		granted[i] = true
		files = append(files, t.files[i])
		for _, run := range t.files[i].Runs {
			layers = append(layers, uint32(run.Layer))
		}
	}
	slices.Sort(layers)
	layers = slices.Compact(layers)
	for _, layer := range layers {
		for _, p := range t.pieces[layer] {
			if !granted[p.File] {
				return nil, nil, fmt.Errorf("%w: %q shares layer %d with files that are granted: grant it too, or publish the model in fewer and larger files", ErrConfig, clip(t.files[p.File].Path), layer)
			}
		}
	}
	list, err := json.Marshal(files)
	return list, layers, err
}
