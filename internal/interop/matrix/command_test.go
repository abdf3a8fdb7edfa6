// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
)

// deadline is far above what a verb may take whatever a service does: three
// calls of ten seconds, and what is waited between them.
const deadline = 2 * time.Minute

// TestCommand pushes, pulls and grants with every kind of key, and looks for the
// data keys everywhere afterwards.
func TestCommand(t *testing.T) {
	for name, open := range providers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := open(t)
			c := newCommand(t, p.env...)
			writeModel(t, c.path("model"))
			taps := newTaps(t)
			r := newRegistry(t)
			s := &session{t: t, c: c, p: p, registry: r, tap: taps}
			s.pushAndPull()
			s.grant()
			s.refusals()
			s.search()
		})
	}
}

// session is one kind of key on its way through the verbs.
type session struct {
	t        *testing.T
	c        *command
	p        provider
	registry *registry
	tap      taps
	first    string // what the first push made
}

// flags are those of a push for the given recipients.
func (s *session) push(status int, tag, recipient string, more ...string) string {
	s.t.Helper()
	args := append([]string{"push", "model", s.registry.host + "/team/llama:" + tag, "--sign-key", "keys/signing.key", "--progress", "json",
		"--recipient", s.tap.recipient(), "--recipient", recipient}, more...)
	if s.p.classical && recipient == s.p.recipient {
		args = append(args, "--allow-classical", "a test")
	}
	out, _ := s.c.run(s.t, status, args...)
	return strings.TrimSpace(out)
}

func (s *session) pull(status int, ref, identity string) (stderr string) {
	s.t.Helper()
	began := time.Now()
	out := s.c.path("out-" + rand.Text())
	_, stderr = s.c.run(s.t, status, "pull", ref, out, "--key", "keys/signing.pub", "--identity", identity, "--progress", "json")
	if took := time.Since(began); took > deadline {
		s.t.Errorf("pull took %v", took)
	}
	if _, err := os.Stat(out); status != 0 && !errors.Is(err, fs.ErrNotExist) {
		s.t.Errorf("pull failed and left %s: %v", out, err)
	}
	if status == 0 {
		sameFiles(s.t, s.c.path("model"), out)
	}
	return stderr
}

// pushAndPull is interrupted once by the registry, so that a journal is left
// with a wrapped key in it, and goes on with that. It takes a key file to go on:
// no service is asked about a file that nobody signed.
func (s *session) pushAndPull() {
	s.t.Helper()
	journal := []string{"--journal", s.c.path("journal"), "--recipient", "third/identity.pub", "--identity", "third/identity.key"}
	s.registry.refuseManifests.Store(true)
	s.push(5, "v1", s.p.recipient, journal...)
	s.registry.refuseManifests.Store(false)
	left, err := os.ReadFile(s.c.path("journal"))
	if err != nil || len(left) == 0 {
		s.t.Fatalf("no journal was left: %v", err)
	}
	s.absent("the journal", left)
	s.first = s.push(0, "v1", s.p.recipient, journal...)
	if n := s.tap.count(s.t); n != 1 {
		s.t.Errorf("%d data keys for a push that was resumed", n)
	}
	s.pull(0, s.first, s.p.identity)
	s.pull(4, s.first, s.p.stranger)
}

// grant gives access from this key to another and the other way round.
func (s *session) grant() {
	s.t.Helper()
	s.c.run(s.t, 0, "grant", s.first, "--key", "keys/signing.pub", "--sign-key", "keys/signing.key",
		"--identity", s.p.identity, "--recipient", "second/identity.pub", "--not-after", "2100-01-01T00:00:00Z")
	s.pull(0, s.first, "second/identity.key")

	ref := s.push(0, "v2", "keys/identity.pub")
	s.pull(4, ref, s.p.identity)
	args := []string{"grant", ref, "--key", "keys/signing.pub", "--sign-key", "keys/signing.key",
		"--identity", "keys/identity.key", "--recipient", s.p.recipient, "--not-after", "2100-01-01T00:00:00Z"}
	if s.p.classical {
		s.c.run(s.t, 2, args...)
		args = append(args, "--allow-classical", "a test")
	}
	s.c.run(s.t, 0, args...)
	s.pull(0, ref, s.p.identity)
}

// refusals are what the service may answer. The tap comes first, so there is a
// data key that the service, where it quotes what it was sent, tells.
func (s *session) refusals() {
	s.t.Helper()
	for _, state := range []struct {
		enter  func(*testing.T)
		status int
		says   string
	}{
		{s.p.service.Disable, 4, "the key is disabled or gone"},
		{s.p.service.Deny, 4, "the key service denied the request"},
		{s.p.service.Throttle, 5, "the key service asks for fewer requests"},
		{s.p.service.Fail, 5, "the key service is not available"},
	} {
		if state.enter == nil {
			continue
		}
		state.enter(s.t)
		if stderr := s.pull(state.status, s.first, s.p.identity); !strings.Contains(stderr, state.says) {
			s.t.Errorf("pull does not say %q:\n%s", state.says, stderr)
		}
		s.push(state.status, "refused", s.p.recipient)
		s.p.service.Heal(s.t)
	}
	if s.p.service.Quote != nil {
		s.p.service.Quote(s.t)
		s.pull(4, s.first, s.p.identity)
		s.push(1, "refused", s.p.recipient)
		s.p.service.Heal(s.t)
	}
	s.pull(0, s.first, s.p.identity)
}

// search looks at all that the command wrote, on its streams, on disk and at the
// registry.
func (s *session) search() {
	s.t.Helper()
	s.absent("the streams", s.c.output.Bytes())
	for _, dir := range []string{s.c.dir, s.registry.dir} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			s.absent(path, b)
			return err
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// registry keeps all that it gets in a directory.
type registry struct {
	host, dir       string
	refuseManifests atomic.Bool
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{dir: t.TempDir()}
	o, err := ociserver.NewDir(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.Close() })
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodPut && strings.Contains(q.URL.Path, "/manifests/") && r.refuseManifests.Load() {
			http.Error(w, "", http.StatusForbidden)
			return
		}
		o.ServeHTTP(w, q)
	}))
	t.Cleanup(h.Close)
	r.host = strings.TrimPrefix(h.URL, "http://")
	return r
}

func writeModel(t *testing.T, dir string) {
	t.Helper()
	weights := make([]byte, 300<<10)
	rand.Read(weights)
	for name, content := range map[string][]byte{"config.json": []byte(`{"model_type":"llama"}`), "model.safetensors": weights} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func sameFiles(t *testing.T, a, b string) {
	t.Helper()
	for _, name := range []string{"config.json", "model.safetensors"} {
		want, err := os.ReadFile(filepath.Join(a, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(b, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d others (error %v)", name, len(got), len(want), err)
		}
	}
}
