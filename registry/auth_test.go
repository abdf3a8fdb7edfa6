// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

const secret = "correct-horse"

func withPassword(context.Context, string) (registry.Credential, error) {
	return registry.Credential{Username: "user", Password: secret}, nil
}

// tokens is a token service and the check of its tokens.
type tokens struct {
	mu     sync.Mutex
	issued int
	uses   int    // of the current token
	maxUse int    // 0: without end
	realm  string // in challenges
}

func (k *tokens) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	user, password, _ := r.BasicAuth()
	if r.Method == http.MethodPost {
		r.ParseForm()
		user, password = "user", r.Form.Get("refresh_token")
	}
	if user != "user" || password != secret {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	k.issued++
	k.uses = 0
	if r.Method == http.MethodPost {
		fmt.Fprintf(w, `{"access_token":"t%d"}`, k.issued)
		return
	}
	fmt.Fprintf(w, `{"token":"t%d"}`, k.issued)
}

func (k *tokens) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		k.mu.Lock()
		k.uses++
		ok := r.Header.Get("Authorization") == fmt.Sprintf("Bearer t%d", k.issued) && (k.maxUse == 0 || k.uses <= k.maxUse)
		challenge := fmt.Sprintf(`Bearer realm="%s",service="registry",scope="repository:team/model:pull"`, k.realm)
		k.mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func TestBasicCredentialsAreSent(t *testing.T) {
	server := ociserver.New()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != secret {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		server.ServeHTTP(w, r)
	})
	host := serve(t, h)
	s := open(t, &registry.Client{Credentials: withPassword}, host+"/team/model")
	d := pushBlob(t, s, pattern(100_000))
	if _, err := read(t, s, d, 0, d.Size); err != nil {
		t.Error(err)
	}
	pushManifest(t, s, "basic", nil)
	for name, credentials := range map[string]func(context.Context, string) (registry.Credential, error){
		"none": anonymous,
		"wrong": func(context.Context, string) (registry.Credential, error) {
			return registry.Credential{Username: "user", Password: "wrong"}, nil
		},
	} {
		s := open(t, &registry.Client{Credentials: credentials}, host+"/team/model")
		if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrUnauthorized) {
			t.Errorf("%s: got error %v, want ErrUnauthorized", name, err)
		}
	}
}

func TestTokensAreRenewed(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		for name, credential := range map[string]registry.Credential{
			"password": {Username: "user", Password: secret},
			"identity": {RefreshToken: secret},
		} {
			t.Run(fmt.Sprintf("trusted=%v/%s", trusted, name), func(t *testing.T) {
				k := &tokens{maxUse: 7}
				server := ociserver.New()
				mux := http.NewServeMux()
				mux.Handle("/token", k)
				mux.Handle("/", k.guard(server))
				host := serve(t, mux)
				k.realm = "http://" + host + "/token"
				c := &registry.Client{Credentials: func(context.Context, string) (registry.Credential, error) { return credential, nil }}
				if trusted {
					c.Hosts = map[string]registry.Host{host: {TrustedRealms: []string{host}}}
				}
				s := open(t, c, host+"/team/model")
				d := pushBlob(t, s, pattern(50_000))
				for range 40 {
					if _, err := read(t, s, d, 10, 1000); err != nil {
						t.Fatal(err)
					}
				}
				m := pushManifest(t, s, "token", nil)
				if err := s.Tag(t.Context(), m, "v1"); err != nil {
					t.Fatal(err)
				}
				if k.issued < 4 {
					t.Errorf("%d tokens were issued", k.issued)
				}
			})
		}
	}
}

func TestUnauthorizedLoopEnds(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		k := &tokens{maxUse: -1}
		r := &recorder{Handler: k.guard(http.NotFoundHandler())}
		mux := http.NewServeMux()
		mux.Handle("/token", k)
		mux.Handle("/", r)
		host := serve(t, mux)
		k.realm = "http://" + host + "/token"
		c := &registry.Client{Credentials: withPassword}
		if trusted {
			c.Hosts = map[string]registry.Host{host: {TrustedRealms: []string{host}}}
		}
		_, err := open(t, c, host+"/team/model").Resolve(t.Context(), "v1")
		if !errors.Is(err, registry.ErrUnauthorized) {
			t.Errorf("got error %v, want ErrUnauthorized", err)
		}
		if n := len(r.take()); n > 4 {
			t.Errorf("%d requests", n)
		}
	}
}

func TestTokenServiceRefusalsAndFailures(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		failures := 0
		k := new(tokens)
		mux := http.NewServeMux()
		mux.Handle("/token", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if failures++; failures <= 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			k.ServeHTTP(w, r)
		}))
		mux.Handle("/", k.guard(ociserver.New()))
		host := serve(t, mux)
		k.realm = "http://" + host + "/token"
		password := secret
		c := &registry.Client{Credentials: func(context.Context, string) (registry.Credential, error) {
			return registry.Credential{Username: "user", Password: password}, nil
		}}
		if trusted {
			c.Hosts = map[string]registry.Host{host: {TrustedRealms: []string{host}}}
		}
		if _, err := open(t, c, host+"/team/model").Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("trusted=%v: got error %v, want ErrNotFound after the service came back", trusted, err)
		}
		password = "wrong"
		_, err := open(t, c, host+"/team/other").Resolve(t.Context(), "v1")
		var e *registry.Error
		if !errors.Is(err, registry.ErrUnauthorized) || !errors.As(err, &e) || e.Status != http.StatusUnauthorized || e.Temporary() {
			t.Errorf("trusted=%v: got error %v, want a lasting ErrUnauthorized", trusted, err)
		}
	}
}

func TestCredentialFailureIsNotAnonymousAccess(t *testing.T) {
	lost := errors.New("keychain is locked")
	for _, scheme := range []string{"Basic", `Bearer realm="%s/token"`} {
		var host string
		requests := 0
		host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			requests++
			w.Header().Set("WWW-Authenticate", strings.Replace(scheme, "%s", "http://"+host, 1))
			w.WriteHeader(http.StatusUnauthorized)
		}))
		c := &registry.Client{Credentials: func(context.Context, string) (registry.Credential, error) { return registry.Credential{}, lost }}
		if _, err := open(t, c, host+"/team/model").Resolve(t.Context(), "v1"); !errors.Is(err, lost) || requests != 1 {
			t.Errorf("%s: got error %v after %d requests, want %v after one", scheme, err, requests, lost)
		}
	}
}

// A token service under another name, in a private network or on loopback, is
// not sent anything unless the caller named it.
func TestRealmInPrivateNetworkMustBeNamed(t *testing.T) {
	k := new(tokens)
	seen := &recorder{Handler: k}
	realmHost := strings.Replace(serve(t, seen), "127.0.0.1", "localhost", 1)
	k.realm = "http://" + realmHost + "/token"
	host := serve(t, k.guard(ociserver.New()))
	if _, err := open(t, &registry.Client{Credentials: withPassword}, host+"/team/model").Resolve(t.Context(), "v1"); err == nil || errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got error %v, want a refusal", err)
	}
	if n := len(seen.take()); n != 0 {
		t.Errorf("%d requests to a token service that was not named", n)
	}
	c := &registry.Client{Credentials: withPassword, Hosts: map[string]registry.Host{host: {TrustedRealms: []string{realmHost}}}}
	if _, err := open(t, c, host+"/team/model").Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("named: got error %v, want ErrNotFound", err)
	}
	if n := len(seen.take()); n != 1 {
		t.Errorf("named: %d token requests, want 1", n)
	}
}

func TestRealmAtMetadataServiceIsRefused(t *testing.T) {
	for _, realm := range []string{
		"http://169.254.169.254/latest", "http://[fd00:ec2::254]/x", "http://10.0.0.1/t", "http://100.100.100.200/",
		"http://0.0.0.0/", "file:///etc/passwd", "gopher://x/", "http://user:pass@169.254.169.254/",
	} {
		k := &tokens{realm: realm}
		host := serve(t, k.guard(http.NotFoundHandler()))
		for name, c := range map[string]*registry.Client{
			"plain":   {Credentials: withPassword},
			"trusted": {Credentials: withPassword, Hosts: map[string]registry.Host{host: {TrustedRealms: []string{"auth.example.com"}}}},
		} {
			_, err := open(t, c, host+"/team/model").Resolve(t.Context(), "v1")
			var e *registry.Error
			if !errors.As(err, &e) || e.Temporary() || errors.Is(err, registry.ErrNotFound) {
				t.Errorf("%s, realm %s: got error %v, want a lasting refusal", name, realm, err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("error holds the password: %v", err)
			}
		}
	}
}

func TestDialGuardComparesNetworks(t *testing.T) {
	const public, private, loopback = "93.184.216.34", "10.1.2.3", "127.0.0.1"
	for _, c := range []struct {
		own, target  string
		store, realm bool
	}{
		{public, "93.184.216.35", true, true},
		{public, private, false, false},
		{public, "172.16.0.1", false, false},
		{public, "192.168.1.1", false, false},
		{public, "100.100.100.200", false, false},
		{public, "fd00:ec2::254", false, false},
		{public, loopback, false, false},
		{public, "::1", false, false},
		{public, "::ffff:127.0.0.1", false, false},
		{public, "::ffff:10.0.0.1", false, false},
		{public, "64:ff9b::a9fe:a9fe", false, false},
		{public, "2002:7f00:1::", false, false},
		{private, "192.168.1.1", true, false},
		{private, public, true, true},
		{private, loopback, false, false},
		{loopback, loopback, true, false},
		{loopback, private, true, false},
		{loopback, "169.254.169.254", false, false},
		{loopback, "fe80::1", false, false},
		{loopback, "0.0.0.0", false, false},
		{loopback, "::", false, false},
		{loopback, "224.0.0.1", false, false},
		{loopback, "255.255.255.255", false, false},
		{"169.254.1.1", "169.254.169.254", false, false},
	} {
		store, realm := registry.MayDial(netip.MustParseAddr(c.own), netip.MustParseAddr(c.target))
		if store != c.store || realm != c.realm {
			t.Errorf("registry at %s: may redirect to %s: %v, may have its token service there: %v; want %v, %v", c.own, c.target, store, realm, c.store, c.realm)
		}
	}
}

func TestChallengesAreParsed(t *testing.T) {
	for header, want := range map[string]string{
		`Bearer realm="https://a.example/t",service="s"`:               "https://a.example/t s",
		`bearer service="s,with comma", realm="https://a.example/t?x"`: "https://a.example/t?x s,with comma",
		`Bearer realm=https://a.example`:                               "",
		`Bearer`:                                                       "",
		`Basic realm="https://a.example"`:                              "",
		`Bearer realm="https://u:p@a.example"`:                         "",
		`Bearer realm="/relative"`:                                     "",
		`Bearer realm="https://a",realm="https://b"`:                   "",
		``: "",
	} {
		realm, service, ok := registry.Challenge(header)
		if got := strings.TrimSpace(realm + " " + service); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", header, got, ok, want)
		}
	}
}

func TestCredentialsAreNotPrinted(t *testing.T) {
	c := registry.Credential{Username: "user", Password: secret, RefreshToken: secret, AccessToken: secret}
	if s := fmt.Sprintf("%v %+v %#v %s", c, c, c, &c); strings.Contains(s, secret) {
		t.Errorf("printed as %s", s)
	}
}
