// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const shard, otherShard = "other.safetensors", "model.safetensors"

// grantFiles gives somebody some files of an artifact.
func grantFiles(t *testing.T, p *party, o registry.Opener, d ocispec.Descriptor, to *party, names ...string) {
	t.Helper()
	_, err := p.client(o).Grant(t.Context(), pinned(d), p.policy(), to.recipients(), &modelsec.GrantOptions{Signer: p.signer, Files: names})
	if err != nil {
		t.Fatal(err)
	}
}

// listed are the names of the files that a model shows.
func listed(m *modelsec.Model) (names []string) {
	for _, f := range m.Files() {
		names = append(names, f.Name)
	}
	return names
}

// TestScopedGrantOpensThatShardAndNoOtherByte is K15 for grants of some files.
func TestScopedGrantOpensThatShardAndNoOtherByte(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory, src := registry.NewMemory(), large()
	d := push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	grantFiles(t, p, memory, d, friend, shard)

	c := friend.client(memory)
	m, err := c.OpenFiles(t.Context(), tagged, p.policy(), shard)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got := fmt.Sprint(listed(m)); got != "["+shard+"]" {
		t.Errorf("the model lists %v", got)
	}
	if err := fstest.TestFS(m.FS(t.Context()), shard); err != nil {
		t.Error(err)
	}
	if b, err := fs.ReadFile(m.FS(t.Context()), shard); err != nil || !bytes.Equal(b, src[shard].Data) {
		t.Errorf("got %d bytes, error %v", len(b), err)
	}
	if _, err := m.ReaderAt(t.Context(), otherShard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another file: %v, want fs.ErrNotExist", err)
	}

	// The keys, whatever a reader does with them, are those of one layer.
	s := openShelf(t, memory, repository)
	g := must(encrypt.ParseGrant(s.read(s.manifest(s.referrers(d, grantType)[0]).Layers[0])))
	b := encrypt.Binding{ArtifactID: g.ArtifactID, Commitment: g.Commitment, Manifest: g.Manifest}
	if _, err := encrypt.UnwrapKey(t.Context(), g.Recipients, b, now, friend.identity); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("the data key: %v, want ErrNoKey", err)
	}
	err = encrypt.Unwrap(t.Context(), g.Recipients, b, now, func(k encrypt.PartKeys, _ encrypt.Stanza) bool {
		defer k.Close()
		for i := range uint32(3) {
			_, err := encrypt.NewPartOpener(k, encrypt.Part{ArtifactID: b.ArtifactID, Layer: i, Length: 1, SegmentSize: segment}, make([]byte, encrypt.HeaderSize))
			if has := !errors.Is(err, encrypt.ErrNoKey); has != (i == 1) {
				t.Errorf("key of layer %d: %v", i, has)
			}
		}
		return true
	}, friend.identity)
	if err != nil {
		t.Error(err)
	}

	for _, names := range [][]string{{otherShard}, {shard, "config.json"}, {"no such file"}} {
		_, err = c.OpenFiles(t.Context(), tagged, p.policy(), names...)
		refused(t, err, modelsec.ErrNoKey)
		contains(t, err, names[len(names)-1], `open ["`+shard+`"]`)
	}
	_, err = c.OpenFiles(t.Context(), tagged, p.policy())
	refused(t, err, modelsec.ErrConfig)

	dir := filepath.Join(t.TempDir(), "model")
	if _, err := c.Pull(t.Context(), tagged, dir, p.policy(), &modelsec.ExtractOptions{Files: []string{shard}}); err != nil {
		t.Fatal(err)
	}
	sameFiles(t, dir, fstest.MapFS{shard: src[shard]})
	for _, r := range s.everything(d) {
		if bytes.Contains(s.read(r.desc), []byte(shard)) {
			t.Errorf("the registry sees the name of a file in a %s", r.what)
		}
	}
}

// TestHidingTheFullGrantNeverYieldsASilentSubset is K16: whoever can open all
// of a model, and is shown only a grant of a shard, gets an error.
func TestHidingTheFullGrantNeverYieldsASilentSubset(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, large(), p.options(p.recipients()))
	grantFiles(t, p, memory, d, friend, shard)
	s := openShelf(t, memory, repository)
	older := s.manifest(s.referrers(d, grantType)[0])
	if _, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), &modelsec.GrantOptions{Signer: p.signer}); err != nil {
		t.Fatal(err)
	}
	c := friend.client(memory)
	if !opens(t, friend, p, memory, d) {
		t.Fatal("the full grant does not open the artifact")
	}
	if m, err := c.OpenFiles(t.Context(), tagged, p.policy(), shard, "config.json"); err != nil || len(listed(m)) != 2 {
		t.Fatal(err)
	}

	// The registry serves the document from before again.
	for _, r := range s.referrers(d, grantType) {
		if err := s.Delete(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	s.put(older)
	_, err := c.Open(t.Context(), tagged, p.policy())
	refused(t, err, modelsec.ErrPartial)
	refused(t, err, modelsec.ErrNoKey)
	pullFails(t, c, tagged, p.policy(), modelsec.ErrPartial)
	dir := filepath.Join(t.TempDir(), "model")
	_, err = c.Pull(t.Context(), tagged, dir, p.policy(), &modelsec.ExtractOptions{Include: []string{"*.safetensors"}})
	refused(t, err, modelsec.ErrPartial)
	_, err = c.Pull(t.Context(), tagged, dir, p.policy(), &modelsec.ExtractOptions{Files: []string{shard, otherShard}})
	refused(t, err, modelsec.ErrNoKey)
	absent(t, dir)
	_, err = c.Grant(t.Context(), pinned(d), p.policy(), p.recipients(), nil)
	refused(t, err, modelsec.ErrPartial)
	if m, err := c.OpenFiles(t.Context(), tagged, p.policy(), shard); err != nil || len(listed(m)) != 1 {
		t.Errorf("the shard, by name: %v", err)
	}
}

// TestScopedGrantIsTheWordOfAGrantSigner: every holder of the data key could
// write a list in which a name stands for other bytes.
func TestScopedGrantIsTheWordOfAGrantSigner(t *testing.T) {
	p, insider, victim := newParty(t), newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, large(), p.options(append(p.recipients(), insider.recipients()...)))
	o := &modelsec.GrantOptions{Files: []string{shard}}
	_, err := insider.client(memory).Grant(t.Context(), pinned(d), p.policy(), victim.recipients(), o)
	refused(t, err, modelsec.ErrConfig)
	o.Signer = insider.signer
	if _, err := insider.client(memory).Grant(t.Context(), pinned(d), p.policy(), victim.recipients(), o); err != nil {
		t.Fatal(err)
	}
	_, err = victim.client(memory).OpenFiles(t.Context(), tagged, p.policy(), shard)
	refused(t, err, modelsec.ErrNoKey)
	contains(t, err, "none signed by a grant signer")
	policy := p.policy()
	policy.Rules[0].GrantSigners = append(policy.Rules[0].GrantSigners, insider.principal(t))
	if _, err := victim.client(memory).OpenFiles(t.Context(), tagged, policy, shard); err != nil {
		t.Error(err)
	}
}

// TestScopedGrantsAddUp: one for each shard opens both, within the four calls of K14.
func TestScopedGrantsAddUp(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	d := push(t, p.client(memory), tagged, large(), p.options(p.recipients()))
	for _, name := range []string{shard, otherShard, "config.json"} {
		grantFiles(t, p, memory, d, friend, name)
	}
	remote := &service{Identity: friend.identity}
	c := friend.client(memory)
	for _, c.Identities = range [][]encrypt.Identity{{friend.identity}, {remote}} {
		m, err := c.OpenFiles(t.Context(), tagged, p.policy(), shard, otherShard, shard)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{shard, otherShard} {
			if b, err := fs.ReadFile(m.FS(t.Context()), name); err != nil || !bytes.Equal(b, large()[name].Data) {
				t.Errorf("%s: %v", name, err)
			}
		}
		m.Close()
	}
	if n := remote.calls.Load(); n > 4 {
		t.Errorf("the service was asked %d times", n)
	}
	if !opens(t, p, p, memory, d) {
		t.Error("grants of some files took the whole away")
	}
}

// TestScopedGrantsThatOverlapAreRefused: each list was held to the geometry by
// itself. Where two place files over each other, reading one must not silently
// leave out what the other has.
func TestScopedGrantsThatOverlapAreRefused(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	src := source(map[string]int{shard: 3 * segment})
	d := push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	s := openShelf(t, memory, repository)
	g := must(encrypt.ParseGrant(s.read(s.manifest(s.referrers(d, grantType)[0]).Layers[0])))
	b := encrypt.Binding{ArtifactID: g.ArtifactID, Commitment: g.Commitment, Manifest: g.Manifest}
	key := must(encrypt.UnwrapKey(t.Context(), g.Recipients, b, now, p.identity))
	defer key.Close()
	list := func(name string, offset, size int) {
		files := fmt.Appendf(nil, `[{"path":%q,"role":"weight","size":%d,"runs":[[0,0,%d,%[2]d]]}]`, name, size, offset)
		g.Recipients = must(encrypt.WrapFiles(t.Context(), key, b, files, []uint32{0}, friend.recipients()...))
		doc := must(g.Encode())
		bundle := signed(t, p, d.Digest, must(provenance.NewGrant(digestOf(doc))))
		s.attach(d, grantType, s.blob(grantType, doc), s.blob(provenance.BundleMediaType, bundle.Bytes()))
	}
	list(shard, 0, 3*segment)
	list(otherShard, 10, 20)
	m, err := friend.client(memory).OpenFiles(t.Context(), tagged, p.policy(), shard, otherShard)
	if err == nil {
		got, err := fs.ReadFile(m.FS(t.Context()), shard)
		t.Errorf("opened; reads the shard as it is: %v, %v", bytes.Equal(got, src[shard].Data), err)
		m.Close()
		return
	}
	refused(t, err, modelsec.ErrFormat)
	contains(t, err, "overlap")
	for _, name := range []string{shard, otherShard} {
		m, err := friend.client(memory).OpenFiles(t.Context(), tagged, p.policy(), name)
		if err != nil {
			t.Fatal(name, err)
		}
		m.Close()
	}
}

// TestScopedGrantRefusesSharedLayers: the key of a packed layer opens all of it.
func TestScopedGrantRefusesSharedLayers(t *testing.T) {
	p, friend := newParty(t), newParty(t)
	memory := registry.NewMemory()
	many := make(map[string]int)
	for i := range 301 {
		many[fmt.Sprintf("docs/%03d.txt", i)] = 10
	}
	d := push(t, p.client(memory), tagged, source(many), p.options(p.recipients()))
	o := &modelsec.GrantOptions{Signer: p.signer, Files: []string{"docs/007.txt"}}
	_, err := p.client(memory).Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), o)
	refused(t, err, modelsec.ErrConfig)
	contains(t, err, "docs/000.txt", "shares layer 0")
	o.Files = []string{"no such file"}
	_, err = p.client(memory).Grant(t.Context(), pinned(d), p.policy(), friend.recipients(), o)
	refused(t, err, modelsec.ErrConfig)
}

// TestOpenFilesShowsThoseFiles of any artifact, and never fewer.
func TestOpenFilesShowsThoseFiles(t *testing.T) {
	p := newParty(t)
	for profile, options := range p.profiles() {
		memory := registry.NewMemory()
		push(t, p.client(memory), tagged, large(), options())
		m, err := p.client(memory).OpenFiles(t.Context(), tagged, p.policy(), shard)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := fs.ReadFile(m.FS(t.Context()), shard); err != nil || !bytes.Equal(b, large()[shard].Data) || len(listed(m)) != 1 {
			t.Errorf("%s: %v, %v", profile, listed(m), err)
		}
		m.Close()
		_, err = p.client(memory).OpenFiles(t.Context(), tagged, p.policy(), shard, "config.jso")
		refused(t, err, fs.ErrNotExist)
	}
}
