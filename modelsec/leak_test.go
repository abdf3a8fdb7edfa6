// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
)

// watcher is an identity that notes the keys it unwraps, and fails as told.
type watcher struct {
	*encrypt.HPKEIdentity
	fails error

	mu   sync.Mutex
	seen map[string][]byte // what it is → bytes
}

func (w *watcher) CallsOut() bool { return true }

func (w *watcher) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	out, err := w.HPKEIdentity.Unwrap(ctx, s, b)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	key := bytes.Clone(out[96:])
	id := hex.EncodeToString(b.ArtifactID[:])
	if s.Scope == encrypt.ScopeFiles {
		w.seen["grant key of "+id] = key
	} else {
		w.seen["data key of "+id] = key
		for layer := range uint32(3) {
			info := binary.BigEndian.AppendUint32(append([]byte("modelsec/v1/file\x00"), b.ArtifactID[:]...), layer)
			w.seen[fmt.Sprintf("key of layer %d of %s", layer, id)] = must(hkdf.Expand(sha512.New384, key, string(info), 32))
		}
	}
	return out, w.fails
}

// forms are the ways in which a key could be written.
func forms(key []byte) [][]byte {
	part := key[:15] // so that base64 does not depend on what follows
	return [][]byte{part, []byte(hex.EncodeToString(part)), []byte(strings.ToUpper(hex.EncodeToString(part))),
		[]byte(base64.StdEncoding.EncodeToString(part)), []byte(base64.URLEncoding.EncodeToString(part)),
		[]byte(strings.Trim(fmt.Sprint(part), "[]")), []byte(strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"))}
}

// TestKeysAreNowhere searches for the data key, the keys of layers and those of
// grants in errors, logs, events, journals, what a pull leaves, and everything
// at the registry, after operations that succeed and that fail.
func TestKeysAreNowhere(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"src", "registry", "out"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, f := range large() {
		if err := os.WriteFile(filepath.Join(dir, "src", name), f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	server := must(ociserver.NewDir(filepath.Join(dir, "registry")))
	t.Cleanup(func() { server.Close() })
	var uploads atomic.Int32
	var breakUploads, flip atomic.Bool
	server.Fault = func(r *http.Request) *ociserver.Fault {
		switch {
		case breakUploads.Load() && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/uploads/") && uploads.Add(1) > 1:
			return &ociserver.Fault{Status: http.StatusForbidden}
		case flip.Load() && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/"):
			return &ociserver.Fault{Flip: []int64{100}}
		}
		return nil
	}
	name := serve(t, server)

	var said bytes.Buffer // whatever anybody is told
	note := func(v ...any) {
		fmt.Fprintf(&said, "%v\n%+v\n%#v\n", v, v, v)
	}
	events := &auditor{}
	p, friend, fresh := newParty(t), newParty(t), newParty(t)
	keys := make(map[string][]byte)
	watch := func(who *party) *watcher { return &watcher{HPKEIdentity: who.identity, seen: keys} }
	ours := watch(p)
	client := func(id encrypt.Identity) *modelsec.Client {
		return &modelsec.Client{Registry: remote(), Identities: []encrypt.Identity{id}, KeyLifetime: 1 << 40,
			Hooks: modelsec.Hooks{Audit: events.audit}, Logger: slog.New(slog.NewJSONHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))}
	}
	journal := filepath.Join(dir, "journal")
	options := p.options(p.recipients())
	options.Journal = journal
	push := func() (d digest.Digest, err error) {
		c := client(p.identity) // a journal is taken up with a key file
		desc, err := c.Push(t.Context(), name+":v3", os.DirFS(filepath.Join(dir, "src")), options)
		return desc.Digest, err
	}
	breakUploads.Store(true)
	_, err := push()
	if err == nil {
		t.Fatal("the push did not fail")
	}
	note(err, string(must(os.ReadFile(journal))))
	breakUploads.Store(false)
	d, err := push()
	if err != nil {
		t.Fatal(err)
	}
	ref := name + "@" + string(d)

	c := client(ours)
	m, err := c.Open(t.Context(), ref, p.policy())
	if err != nil {
		t.Fatal(err)
	}
	note(m.Report(), m.Notes(), m.Files(), m.Descriptor())
	flip.Store(true)
	_, err = fs.ReadFile(m.FS(t.Context()), shard)
	refused(t, err, modelsec.ErrDigest)
	note(err, m.Close())
	_, err = c.Pull(t.Context(), ref, filepath.Join(dir, "out", "broken"), p.policy(), nil)
	note(err)
	flip.Store(false)
	if _, err := c.Pull(t.Context(), ref, filepath.Join(dir, "out", "whole"), p.policy(), nil); err != nil {
		t.Fatal(err)
	}
	denied := watch(p)
	denied.fails = fmt.Errorf("%w: status 403", encrypt.ErrDenied)
	_, err = client(denied).Open(t.Context(), ref, p.policy())
	refused(t, err, encrypt.ErrDenied)
	note(err, denied.HPKEIdentity)
	grant, err := c.Grant(t.Context(), ref, p.policy(), friend.recipients(), &modelsec.GrantOptions{Signer: p.signer, Files: []string{shard}})
	note(grant, err)
	scoped, err := client(watch(friend)).OpenFiles(t.Context(), ref, p.policy(), shard)
	if err != nil {
		t.Fatal(err)
	}
	note(scoped.Files(), scoped.Close())
	_, err = client(watch(friend)).OpenFiles(t.Context(), ref, p.policy(), otherShard)
	refused(t, err, modelsec.ErrNoKey)
	note(err)
	rotation := rotation(p, fresh)
	rotation.Journal = filepath.Join(dir, "rotation")
	rotated, err := c.Rotate(t.Context(), name, p.policy(), rotation)
	if err != nil || rotated[0].Outcome != modelsec.OutcomeReplaced {
		t.Fatal(rotated, err)
	}
	note(rotated, string(must(os.ReadFile(rotation.Journal))))
	_, err = c.Open(t.Context(), ref, newParty(t).policy())
	note(err)
	for _, e := range events.all() {
		note(e, string(must(json.Marshal(e))))
	}

	if len(keys) < 5 {
		t.Fatalf("only %d keys were seen", len(keys))
	}
	files := map[string][]byte{"what was said": said.Bytes()}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !strings.HasPrefix(path, filepath.Join(dir, "src")) {
			files[path] = must(os.ReadFile(path))
		}
		return err
	})
	if err != nil || len(files) < 20 {
		t.Fatal(len(files), err)
	}
	for what, key := range keys {
		// Each form is one that the key would be found in.
		files["control"] = fmt.Appendf(nil, "%s %x %X %s %s %v %#v", key, key, key, base64.StdEncoding.EncodeToString(key), base64.URLEncoding.EncodeToString(key), key, key)
		for i, form := range forms(key) {
			if !bytes.Contains(files["control"], form) {
				t.Errorf("form %d of the %s finds nothing", i, what)
			}
		}
		delete(files, "control")
		for i, form := range forms(key) {
			for where, b := range files {
				if bytes.Contains(b, form) {
					t.Errorf("the %s is in %s, form %d", what, where, i)
				}
			}
		}
	}
}
