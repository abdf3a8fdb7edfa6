// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// bulk is a model of 256 MiB in either profile, in a registry on disk, with the
// geometry that publishers get by default.
type bulk struct {
	p      *party
	source string // directory
	size   int64
	server *ociserver.Server
}

// bulkSize is 256 MiB, or what MODELSEC_INTEROP_SIZE says, if that is less.
func bulkSize(t *testing.T) int64 {
	size := int64(256 << 20)
	if testing.Short() {
		size = 64 << 20
	}
	if text := os.Getenv("MODELSEC_INTEROP_SIZE"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1<<20 {
			t.Fatalf("MODELSEC_INTEROP_SIZE=%q: want a number of bytes, at least 1 MiB", text)
		}
		size = min(size, max(n, 64<<20))
	}
	return size
}

// newBulk writes the model and starts a registry that lacks it.
func newBulk(t *testing.T) *bulk {
	t.Helper()
	b := &bulk{p: newParty(t), source: t.TempDir(), size: bulkSize(t)}
	f, err := os.Create(filepath.Join(b.source, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{1}), b.size); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(b.source, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	if b.server, err = ociserver.NewDir(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.server.Close() })
	return b
}

// push puts the model into the registry under the name of the profile.
func (b *bulk) push(t *testing.T, profile string) {
	t.Helper()
	o := &modelsec.PushOptions{Signer: b.p.signer}
	if profile == "encrypted" {
		o.Recipients = b.p.recipients()
	}
	host := over(t, &line{}, b.server)
	push(t, b.p.client(remote()), host+"/team/"+profile+":v3", os.DirFS(b.source), o)
}

// pull pulls from a host, demands the right bytes and returns the notes of the
// report.
func (b *bulk) pull(t *testing.T, c *registry.Client, host, profile string) (notes []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	report, err := b.p.client(c).Pull(t.Context(), host+"/team/"+profile+":v3", dir, b.p.policy(), nil)
	if err != nil {
		t.Fatal(err)
	}
	b.identical(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
	return report.Notes
}

// identical demands exactly the files of the source.
func (b *bulk) identical(t *testing.T, dir string) {
	t.Helper()
	if got, want := sums(t, dir), sums(t, b.source); got != want {
		t.Fatalf("what was pulled is not what was pushed:\n%s\nwant\n%s", got, want)
	}
}

// sums lists the files below a directory with their digests.
func sums(t *testing.T, dir string) string {
	t.Helper()
	var out strings.Builder
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(filepath.Join(dir, p))
		if err != nil {
			return err
		}
		defer f.Close()
		sum, err := digest.FromReader(f)
		fmt.Fprintln(&out, p, sum)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// content reports whether a request is for bytes of the model.
func content(r *http.Request) bool {
	return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
}

// TestPullOverABadLineIsWholeAndThrifty pulls 256 MiB past what breaks pulls:
// each ends byte-identical, and what the servers sent in excess is bounded.
func TestPullOverABadLineIsWholeAndThrifty(t *testing.T) {
	b := newBulk(t)
	for _, profile := range []string{"plain", "encrypted"} {
		b.push(t, profile)
		for _, test := range []struct {
			name string
			run  func(*testing.T, *bulk, string)
		}{
			{"EachConnectionIsCutEvery20MiB", pullOverCutConnection},
			{"TheWholeLineIsCutEvery20MiB", pullOverCutLine},
			{"TheWholeLineIsCutEveryThreeSegments", pullOverFrayedLine},
			{"RangesAreAnsweredWith200", pullWithoutRanges},
			{"RedirectToASecondHost", pullFromASecondHost},
			{"AddressesThatLive5Seconds", pullFromExpiringAddresses},
			{"TokensThatLive5Seconds", pullWithShortTokens},
			{"MirrorThatCorruptsOneIn50", pullPastACorruptMirror},
		} {
			t.Run(test.name+"/"+profile, func(t *testing.T) { test.run(t, b, profile) })
		}
	}
}

// pullOverCutConnection has one connection at a time, each good for 20 MiB.
func pullOverCutConnection(t *testing.T, b *bulk, profile string) {
	l := &line{every: 20 << 20}
	c := remote()
	c.Connections = 1
	b.pull(t, c, over(t, l, b.server), profile)
	if cuts, least := l.broken(), int(b.size/l.every); cuts < least {
		t.Errorf("%d connections broke, want at least %d", cuts, least)
	}
	thrifty(t, b.size, l)
}

// pullOverCutLine has all connections break together.
func pullOverCutLine(t *testing.T, b *bulk, profile string) { b.overCutLine(t, profile, 20<<20) }

// pullOverFrayedLine has a line on which sixteen streams never get a segment
// through before it breaks: there must be fewer.
func pullOverFrayedLine(t *testing.T, b *bulk, profile string) { b.overCutLine(t, profile, 3<<20) }

func (b *bulk) overCutLine(t *testing.T, profile string, every int64) {
	l := &line{every: every, whole: true}
	b.pull(t, remote(), over(t, l, b.server), profile)
	if cuts, least := l.broken(), int(b.size/l.every); cuts < least {
		t.Errorf("%d connections broke, want at least %d", cuts, least)
	}
	thrifty(t, b.size, l)
}

// faulty is the registry with a fault of its own.
func (b *bulk) faulty(fault func(*http.Request) *ociserver.Fault) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := fault(r); f != nil {
			f.Serve(w, r, b.server)
			return
		}
		b.server.ServeHTTP(w, r)
	})
}

func pullWithoutRanges(t *testing.T, b *bulk, profile string) {
	l := &line{}
	host := over(t, l, b.faulty(func(r *http.Request) *ociserver.Fault { return &ociserver.Fault{IgnoreRange: true} }))
	if notes := b.pull(t, remote(), host, profile); !strings.Contains(fmt.Sprint(notes), "ignores ranges") {
		t.Errorf("the report says %q, and not that the host ignores ranges", notes)
	}
	thrifty(t, b.size, l)
	if cuts := l.broken(); cuts > 1 {
		t.Errorf("%d replies were broken off, want that to the first range only", cuts)
	}
}

// secondHost is where a registry sends its clients for content, with addresses
// that are good until so much has crossed its line.
type secondHost struct {
	line
	host  string
	life  int64 // bytes; 0: addresses do not expire
	stale atomic.Int64
}

// start starts the host and returns the registry that points to it.
func (s *secondHost) start(t *testing.T, b *bulk) http.Handler {
	s.host = over(t, &s.line, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the second host was shown a credential")
		}
		until, err := strconv.ParseInt(r.URL.Query().Get("until"), 10, 64)
		if err != nil || s.life > 0 && s.now() > until {
			s.stale.Add(1)
			w.WriteHeader(http.StatusForbidden)
			return
		}
		b.server.ServeHTTP(w, r)
	}))
	return b.faulty(func(r *http.Request) *ociserver.Fault {
		if !content(r) {
			return nil
		}
		location := fmt.Sprintf("http://%s%s?until=%d", s.host, r.URL.Path, s.now()+s.life)
		return &ociserver.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {location}}}
	})
}

func (l *line) now() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

func withPassword(c *registry.Client) *registry.Client {
	c.Credentials = func(context.Context, string) (registry.Credential, error) {
		return registry.Credential{Username: "user", Password: "password"}, nil
	}
	return c
}

func pullFromASecondHost(t *testing.T, b *bulk, profile string) {
	var second secondHost
	first := &line{}
	b.pull(t, withPassword(remote()), over(t, first, second.start(t, b)), profile)
	thrifty(t, b.size, first, &second.line)
}

// pullFromExpiringAddresses: five seconds are the time of 20 MiB here, so that
// a slow machine does not change what happens.
func pullFromExpiringAddresses(t *testing.T, b *bulk, profile string) {
	second := secondHost{life: 20 << 20}
	first := &line{}
	b.pull(t, remote(), over(t, first, second.start(t, b)), profile)
	thrifty(t, b.size, first, &second.line)
	t.Logf("%d addresses had expired", second.stale.Load())
}

// pullWithShortTokens has a line on which the pull takes twenty seconds, of which a
// request takes five at most, and two are under way. The token service claims an
// hour, so that only the 401 tells.
func pullWithShortTokens(t *testing.T, b *bulk, profile string) {
	t.Parallel() // with the other profile: both only wait
	l := &line{rate: b.size / 20}
	var issued atomic.Int64
	var host string
	host = over(t, l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			issued.Add(1)
			fmt.Fprintf(w, `{"token":"until.%d","expires_in":3600}`, time.Now().Add(5*time.Second).UnixNano())
			return
		}
		until, err := strconv.ParseInt(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer until."), 10, 64)
		if err != nil || time.Now().UnixNano() > until {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="registry"`, host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		b.server.ServeHTTP(w, r)
	}))
	c := withPassword(remote())
	c.Connections = 2
	b.pull(t, c, host, profile)
	thrifty(t, b.size, l)
	if issued.Load() < 3 {
		t.Errorf("%d tokens were fetched in four lives of one", issued.Load())
	}
}

// pullPastACorruptMirror has a mirror that inverts a byte of every fiftieth
// segment.
func pullPastACorruptMirror(t *testing.T, b *bulk, profile string) {
	const segment = 1 << 20
	start, step := int64(0), int64(segment)
	if profile == "encrypted" {
		start, step = encrypt.HeaderSize, segment+encrypt.SegmentOverhead
	}
	mirror, origin := &line{}, &line{}
	mirrorHost := over(t, mirror, b.faulty(func(r *http.Request) *ociserver.Fault {
		var first, last int64
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &first, &last); err != nil {
			return nil
		}
		f := &ociserver.Fault{}
		for at := start + 20*step + 7; at <= last; at += 50 * step {
			if at >= first {
				f.Flip = append(f.Flip, at-first)
			}
		}
		return f
	}))
	host := over(t, origin, b.server)
	c := remote()
	c.Hosts = map[string]registry.Host{host: {Mirrors: []registry.Mirror{{URL: "http://" + mirrorHost}}}}
	if notes := b.pull(t, c, host, profile); !strings.Contains(fmt.Sprint(notes), mirrorHost) {
		t.Errorf("the report says %q, and does not name the mirror", notes)
	}
	thrifty(t, b.size, mirror, origin)
	if mirror.sent < 20<<20 {
		t.Errorf("the mirror sent %d bytes", mirror.sent)
	}
}
