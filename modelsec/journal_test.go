// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
)

// interruptedPush pushes with a registry that fails after some uploads, and
// returns what is needed to go on.
func interruptedPush(t *testing.T, encrypted bool) (c *modelsec.Client, p *party, ref, journal string, src fs.FS, server *ociserver.Server, broken *atomic.Bool) {
	t.Helper()
	p = newParty(t)
	broken = new(atomic.Bool)
	var uploads atomic.Int32
	server = ociserver.New()
	server.Fault = func(r *http.Request) *ociserver.Fault {
		if broken.Load() && r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/uploads/") && uploads.Add(1) > 3 {
			return &ociserver.Fault{Status: http.StatusForbidden}
		}
		return nil
	}
	ref = serve(t, server) + ":v3"
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if err := os.WriteFile(filepath.Join(dir, name+".safetensors"), bytes.Repeat([]byte(name), 200_000), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src, journal = os.DirFS(dir), filepath.Join(t.TempDir(), "journal")
	c = &modelsec.Client{Identities: []encrypt.Identity{p.identity}}
	broken.Store(true)
	if _, err := c.Push(context.Background(), ref, src, pushOptions(p, journal, encrypted)); err == nil {
		t.Fatal("the push did not fail")
	}
	broken.Store(false)
	return c, p, ref, journal, src, server, broken
}

func pushOptions(p *party, journal string, encrypted bool) *modelsec.PushOptions {
	o := &modelsec.PushOptions{Signer: p.signer, Journal: journal}
	if encrypted {
		o.Recipients = p.recipients()
	}
	return o
}

func TestPushGoesOnFromItsJournal(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		c, p, ref, journal, src, server, _ := interruptedPush(t, encrypted)
		before := server.Requests("PATCH upload") + server.Requests("POST upload")
		last := lastProgress(c)
		if _, err := c.Push(context.Background(), ref, src, pushOptions(p, journal, encrypted)); err != nil {
			t.Fatal(err)
		}
		if last.Done != last.Total || last.Found == 0 || last.Found == last.Total {
			t.Errorf("encrypted %v: the progress ended with %d bytes of %d, of which %d were there", encrypted, last.Done, last.Total, last.Found)
		}
		fresh := server.Requests("PATCH upload") + server.Requests("POST upload") - before
		whole, p2, ref2, journal2, src2, server2, _ := interruptedPush(t, encrypted)
		os.Remove(journal2)
		before = server2.Requests("PATCH upload") + server2.Requests("POST upload")
		if _, err := whole.Push(context.Background(), ref2, src2, pushOptions(p2, journal2, encrypted)); err != nil {
			t.Fatal(err)
		}
		if all := server2.Requests("PATCH upload") + server2.Requests("POST upload") - before; fresh >= all {
			t.Errorf("encrypted %v: going on took %d upload requests, starting over %d", encrypted, fresh, all)
		}
		if _, err := c.Pull(context.Background(), ref, filepath.Join(t.TempDir(), "out"), p.policy(), nil); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(journal); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the journal is still there after the push was complete: %v", err)
		}
	}
}

// K6: the journal must not decide what is signed.
func TestPushDoesNotSignWhatAForgedJournalSays(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		c, p, ref, journal, src, _, _ := interruptedPush(t, encrypted)
		b, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.SplitAfter(b, []byte("\n"))
		if len(lines) < 4 { // the head, two records and what follows the last line end
			t.Fatalf("the journal has %d lines", len(lines))
		}
		// The second record takes the place of the first: another layer's bytes.
		forged := bytes.Replace(lines[2], lines[2][:bytes.IndexByte(lines[2], ',')], lines[1][:bytes.IndexByte(lines[1], ',')], 1)
		if err := os.WriteFile(journal, bytes.Join([][]byte{lines[0], forged}, nil), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Push(context.Background(), ref, src, pushOptions(p, journal, encrypted)); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "out")
		if _, err := c.Pull(context.Background(), ref, out, p.policy(), nil); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
			got, err := os.ReadFile(filepath.Join(out, name+".safetensors"))
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte(name), 200_000)) {
				t.Errorf("encrypted %v: file %s is not what was pushed: %v", encrypted, name, err)
			}
		}
	}
}

// Without an identity that opens the journal's key, the push uses a new one.
func TestPushStartsOverWhereNoIdentityOpensTheJournal(t *testing.T) {
	c, p, ref, journal, src, _, _ := interruptedPush(t, true)
	c.Identities = nil
	if _, err := (&modelsec.Client{}).Push(context.Background(), ref, src, pushOptions(p, journal, true)); err != nil {
		t.Fatal(err)
	}
	opener := &modelsec.Client{Identities: []encrypt.Identity{p.identity}}
	if _, err := opener.Pull(context.Background(), ref, filepath.Join(t.TempDir(), "out"), p.policy(), nil); err != nil {
		t.Error(err)
	}
}
