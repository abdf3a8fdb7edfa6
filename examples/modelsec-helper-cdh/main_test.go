// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// TestMain is the helper itself where a test starts the test binary as one.
func TestMain(m *testing.M) {
	if os.Getenv("MODELSEC_TEST_HELPER") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// endpoint answers as the components in a guest do.
type endpoint struct {
	*httptest.Server
	requests  atomic.Int64
	mu        sync.Mutex
	resources map[string]string
	status    int
	healed    chan struct{} // closed where nothing stalls
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{resources: make(map[string]string)}
	e.enter(200)(t)
	for _, name := range []string{"default/modelsec/ours", "default/modelsec/theirs"} {
		id, err := encrypt.GenerateIdentity("")
		if err != nil {
			t.Fatal(err)
		}
		e.resources[name] = id.PEM()
	}
	e.Server = httptest.NewServer(e)
	t.Cleanup(func() { e.enter(200)(t); e.Close() })
	return e
}

func (e *endpoint) enter(status int) func(*testing.T) {
	return func(*testing.T) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.healed != nil && e.status == stalled {
			close(e.healed)
		}
		e.status, e.healed = status, make(chan struct{})
	}
}

const stalled = -1

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.requests.Add(1)
	e.mu.Lock()
	status, healed := e.status, e.healed
	text, ok := e.resources[strings.TrimPrefix(r.URL.Path, "/cdh/resource/")]
	e.mu.Unlock()
	switch {
	case status == stalled:
		select {
		case <-healed:
		case <-r.Context().Done():
		}
	case status != 200:
		http.Error(w, "no: "+r.URL.String(), status)
	case !ok || r.Method != http.MethodGet:
		http.NotFound(w, r)
	default:
		w.Write([]byte(text))
	}
}

func (e *endpoint) config(t *testing.T) keyhelper.Config {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return keyhelper.Config{Path: self, Env: []string{"CDH_URL=" + e.URL, "MODELSEC_TEST_HELPER=1", "GORACE=atexit_sleep_ms=0"}, Timeout: time.Minute}
}

func TestContract(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		e := newEndpoint(t)
		var helpers []*keyhelper.Helper
		for _, name := range []string{"default/modelsec/ours", "default/modelsec/theirs"} {
			h, err := keyhelper.Open(t.Context(), e.config(t), name)
			if err != nil {
				t.Fatal(err)
			}
			helpers = append(helpers, h)
		}
		return encrypttest.Pair{
			Recipient: helpers[0], Identity: helpers[0], Stranger: helpers[1],
			Requests: func() int { return int(e.requests.Load()) },
			Service: encrypttest.Service{
				Disable:  e.enter(http.StatusNotFound),
				Deny:     e.enter(http.StatusForbidden),
				Throttle: e.enter(http.StatusTooManyRequests),
				Fail:     e.enter(http.StatusInternalServerError),
				Quote:    e.enter(http.StatusTeapot),
				Stall:    e.enter(stalled),
				Heal:     e.enter(200),
			},
		}
	})
}

// TestPublishersNeedNoBroker: what was wrapped for the public key file opens in
// the guest, and its class is that of the key.
func TestPublishersNeedNoBroker(t *testing.T) {
	e := newEndpoint(t)
	id, err := encrypt.ParseIdentity(e.resources["default/modelsec/ours"])
	if err != nil {
		t.Fatal(err)
	}
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if n := e.requests.Load(); n != 0 {
		t.Errorf("%d requests for wrapping", n)
	}
	h, err := keyhelper.Open(t.Context(), e.config(t), "default/modelsec/ours")
	if err != nil {
		t.Fatal(err)
	}
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, h)
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	if encrypt.ClassOf(h) != encrypt.PostQuantum {
		t.Error("the helper says classical")
	}
}

// TestTheKeyStaysOnThisHost: no other host, no proxy and no redirect is asked
// for a key, and nothing but a key file is one.
func TestTheKeyStaysOnThisHost(t *testing.T) {
	for _, u := range []string{"", "https://127.0.0.1:8006", "http://localhost:8006", "http://10.0.0.1:8006", "http://127.0.0.1:8006/x", "http://a@127.0.0.1:8006", "http://127.0.0.1.example.com"} {
		if _, err := newGuest(u); err == nil {
			t.Errorf("endpoint %q was taken", u)
		}
	}
	e := newEndpoint(t)
	away := httptest.NewServer(http.RedirectHandler(e.URL+"/cdh/resource/default/modelsec/ours", http.StatusFound))
	defer away.Close()
	t.Setenv("HTTP_PROXY", away.URL)
	g, err := newGuest(away.URL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.open(t.Context(), "default/modelsec/ours"); err == nil || e.requests.Load() != 0 {
		t.Errorf("error %v, %d requests after a redirect", err, e.requests.Load())
	}
	if g, err = newGuest(e.URL); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a/b", "a/b/c/d", "../b/c", "a/../c", "a/b/c?x", "a/b/%2e", "a//c"} {
		if _, err := g.open(t.Context(), name); err == nil {
			t.Errorf("resource %q was taken", name)
		}
	}
	if n := e.requests.Load(); n != 0 {
		t.Errorf("%d requests for names that are none", n)
	}
	e.resources["a/b/secret"] = "a passphrase of somebody"
	e.resources["a/b/long"] = strings.Repeat("x", maxKeyFile+1)
	for _, name := range []string{"a/b/secret", "a/b/long"} {
		if _, err := g.open(t.Context(), name); err == nil || strings.Contains(err.Error(), "passphrase of") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	e.Close()
	if _, err := g.open(t.Context(), "default/modelsec/ours"); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("nobody listens: error %v, want ErrUnavailable", err)
	}
}
