// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
	"github.com/modelsec/modelsec-go/registry/registrytest"
)

// mirrored opens team/model of a registry that has mirrors.
func mirrored(t *testing.T, origin http.Handler, mirrors ...registry.Mirror) registry.WriteStore {
	t.Helper()
	host := serve(t, origin)
	return open(t, &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{host: {Mirrors: mirrors}}}, host+"/team/model")
}

func TestMirroredStoreKeepsTheContract(t *testing.T) {
	for name, h := range map[string]http.Handler{"empty": ociserver.New(), "broken": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })} {
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) registry.WriteStore {
				return mirrored(t, ociserver.New(), registry.Mirror{URL: "http://" + serve(t, h), Resolve: true})
			})
		})
	}
}

func TestSourcesAreMirrorsInOrder(t *testing.T) {
	a, b := ociserver.New(), ociserver.New()
	hostA, hostB := serve(t, a), serve(t, b)
	s := mirrored(t, ociserver.New(),
		registry.Mirror{URL: "http://" + hostA},
		registry.Mirror{URL: "http://" + hostB + "/cache", Under: "team"},
		registry.Mirror{URL: "http://elsewhere.example.com", Under: "other"})
	content := pattern(1000)
	d := pushBlob(t, open(t, &registry.Client{Credentials: anonymous}, hostB+"/cache/model"), content)
	sources := s.(registry.Sourced).Sources()
	var names []string
	for _, source := range sources {
		names = append(names, source.String())
	}
	if want := []string{"mirror " + hostA, "mirror " + hostB + "/cache"}; !slices.Equal(names, want) {
		t.Fatalf("Sources are %q, want %q", names, want)
	}
	if _, err := sources[0].Fetch(t.Context(), d, 0, d.Size); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("empty mirror: got error %v, want ErrNotFound", err)
	}
	body, err := sources[1].Fetch(t.Context(), d, 100, 200)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if _, ok := sources[0].(registry.WriteStore); ok {
		t.Error("a source can be written")
	}
}

func TestMirrorIsAskedAtItsAddress(t *testing.T) {
	for _, c := range []struct {
		mirror registry.Mirror
		path   string
	}{
		{registry.Mirror{}, "/v2/team/model/"},
		{registry.Mirror{URL: "/"}, "/v2/team/model/"},
		{registry.Mirror{URL: "/v2"}, "/v2/team/model/"},
		{registry.Mirror{URL: "/proxy/hub/"}, "/v2/proxy/hub/team/model/"},
		{registry.Mirror{URL: "/v2/proxy"}, "/v2/proxy/team/model/"},
		{registry.Mirror{URL: "/artifactory/Hub/v2/"}, "/artifactory/Hub/v2/team/model/"},
		{registry.Mirror{URL: "/proxy", Under: "/team/"}, "/v2/proxy/model/"},
		{registry.Mirror{URL: "/proxy/x", Under: "team/model"}, "/v2/proxy/x/"},
		{registry.Mirror{Namespace: true}, "/v2/team/model/"},
	} {
		r := &recorder{Handler: http.NotFoundHandler()}
		m := c.mirror
		m.URL = "http://" + serve(t, r) + m.URL
		m.Header = http.Header{"X-Dragonfly-Registry": {"https://origin"}}
		s := mirrored(t, ociserver.New(), m)
		host := s.(registry.Sourced).Sources()[0]
		d := ocispec.Descriptor{Digest: someDigest, Size: 10}
		if _, err := host.Fetch(t.Context(), d, 0, 10); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%s: got error %v, want ErrNotFound", m.URL, err)
		}
		for _, req := range r.take() {
			if want := c.path + "blobs/" + someDigest; req.URL.Path != want {
				t.Errorf("%s was asked for %s, want %s", m.URL, req.URL.Path, want)
			}
			if got := req.URL.Query().Get("ns"); m.Namespace != strings.HasPrefix(got, "127.0.0.1:") {
				t.Errorf("%s: ns is %q", m.URL, got)
			}
			if req.Header.Get("X-Dragonfly-Registry") != "https://origin" {
				t.Error("header of the mirror is missing")
			}
		}
	}
}

func TestMirrorAddressesAreChecked(t *testing.T) {
	for _, address := range []string{"", "mirror.example.com", "ftp://mirror.example.com", "https://", "https://user:s3cret@mirror.example.com",
		"https://mirror.example.com?key=s3cret", "https://mirror.example.com/#x", "https://mirror.example.com/Upper", "https://mirror.example.com/../x", "https://Mirror.example.com", "https:mirror.example.com"} {
		c := &registry.Client{Hosts: map[string]registry.Host{"example.com": {Mirrors: []registry.Mirror{{URL: address}}}}}
		if _, err := c.Open(t.Context(), "example.com/team/model"); err == nil {
			t.Errorf("%q was accepted", address)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error shows a secret: %v", err)
		}
	}
}

func TestMirrorIsNotShownTheCredentialOfTheRegistry(t *testing.T) {
	challenge := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="mirror"`)
		w.WriteHeader(http.StatusUnauthorized)
	})
	r := &recorder{Handler: challenge}
	mirror, host := serve(t, r), serve(t, ociserver.New())
	var asked []string
	c := &registry.Client{
		Credentials: func(ctx context.Context, h string) (registry.Credential, error) {
			asked = append(asked, h)
			if h == host {
				return withPassword(ctx, h)
			}
			return registry.Credential{}, nil
		},
		Hosts: map[string]registry.Host{host: {Mirrors: []registry.Mirror{{URL: "http://" + mirror, Resolve: true}}}},
	}
	s := open(t, c, host+"/team/model")
	if _, err := s.(registry.Sourced).Sources()[0].Fetch(t.Context(), ocispec.Descriptor{Digest: someDigest, Size: 1}, 0, 1); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("got error %v, want ErrUnauthorized", err)
	}
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("Resolve: got error %v, want ErrNotFound of the registry", err)
	}
	for _, req := range r.take() {
		if req.Header.Get("Authorization") != "" {
			t.Error("mirror was sent a credential")
		}
	}
	for _, h := range asked {
		if h != mirror {
			t.Errorf("credential of %s was looked up for a mirror", h)
		}
	}
}

func TestMirrorHeadersStayWithTheMirror(t *testing.T) {
	server := ociserver.New()
	elsewhere := &recorder{Handler: server}
	to := serve(t, elsewhere)
	mirror := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+to+r.URL.Path, http.StatusTemporaryRedirect)
	}))
	d := pushBlob(t, open(t, &registry.Client{Credentials: anonymous}, to+"/team/model"), pattern(1000))
	elsewhere.take()
	s := mirrored(t, ociserver.New(), registry.Mirror{URL: "http://" + mirror, Header: http.Header{"X-Secret": {secret}, "Authorization": {secret}}})
	body, err := s.(registry.Sourced).Sources()[0].Fetch(t.Context(), d, 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	for _, req := range elsewhere.take() {
		if req.Header.Get("X-Secret") != "" || req.Header.Get("Authorization") != "" {
			t.Errorf("another origin was sent %v", req.Header)
		}
		if req.Header.Get("Range") != "bytes=10-19" {
			t.Errorf("Range is %q", req.Header.Get("Range"))
		}
	}
}

// twins returns a mirror and an origin where v1 names different manifests.
func twins(t *testing.T) (mirror, origin *ociserver.Server, mirrorHost string, inMirror, inOrigin ocispec.Descriptor) {
	mirror, origin = ociserver.New(), ociserver.New()
	mirrorHost = serve(t, mirror)
	c := &registry.Client{Credentials: anonymous}
	for note, server := range map[string]*ociserver.Server{"mirror": mirror, "origin": origin} {
		host := mirrorHost
		if server == origin {
			host = serve(t, origin)
		}
		s := open(t, c, host+"/team/model")
		d := pushManifest(t, s, note, nil)
		if err := s.Tag(t.Context(), d, "v1"); err != nil {
			t.Fatal(err)
		}
		if inOrigin = d; server == mirror {
			inMirror = d
		}
		subject := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: someDigest, Size: 10}
		pushManifest(t, s, note+" referrer", &subject)
	}
	d, err := open(t, c, serve(t, origin)+"/team/model").Resolve(t.Context(), "v1")
	if err != nil {
		t.Fatal(err)
	}
	return mirror, origin, mirrorHost, inMirror, d
}

func TestOnlyNamedMirrorsAnswer(t *testing.T) {
	mirror, origin, host, inMirror, inOrigin := twins(t)
	for resolve, want := range map[bool]ocispec.Descriptor{true: inMirror, false: inOrigin} {
		s := mirrored(t, origin, registry.Mirror{URL: "http://" + host, Resolve: resolve})
		before := mirror.Requests("GET manifest") + mirror.Requests("GET tags") + mirror.Requests("GET referrers")
		got, err := s.Resolve(t.Context(), "v1")
		if err != nil || got.Digest != want.Digest {
			t.Errorf("Resolve %v: Resolve = %s, %v; want %s", resolve, got.Digest, err, want.Digest)
		}
		for _, err := range s.Tags(t.Context()) {
			if err != nil {
				t.Error(err)
			}
		}
		for _, err := range s.Referrers(t.Context(), ocispec.Descriptor{Digest: someDigest}, "") {
			if err != nil {
				t.Error(err)
			}
		}
		if _, err := read(t, s, want, 0, want.Size); err != nil {
			t.Errorf("Resolve %v: Fetch of the manifest: %v", resolve, err)
		}
		if asked := mirror.Requests("GET manifest")+mirror.Requests("GET tags")+mirror.Requests("GET referrers") > before; asked != resolve {
			t.Errorf("Resolve %v: mirror was asked: %v", resolve, asked)
		}
		by := s.(registry.Answered).AnsweredBy()
		if wantBy := []string{"mirror " + host}; resolve && !slices.Equal(by, wantBy) || !resolve && len(by) != 0 {
			t.Errorf("Resolve %v: AnsweredBy = %q", resolve, by)
		}
	}
}

func TestRegistryAnswersWhereMirrorsFail(t *testing.T) {
	for name, fault := range map[string]*ociserver.Fault{
		"absent":   {Status: http.StatusNotFound},
		"refusing": {Status: http.StatusForbidden},
		"broken":   {Status: http.StatusBadGateway},
		"lying":    {Flip: []int64{50}},
		"silly":    {Header: http.Header{"Content-Type": {"text/html"}}},
		"cut":      {Cut: true, CutAfter: 10},
	} {
		mirror, origin, host, _, inOrigin := twins(t)
		mirror.Fault = func(*http.Request) *ociserver.Fault { return fault }
		s := mirrored(t, origin, registry.Mirror{URL: "http://" + host, Resolve: true})
		d, err := s.Resolve(t.Context(), inOrigin.Digest.String())
		if err != nil || d.Digest != inOrigin.Digest {
			t.Errorf("%s: Resolve = %s, %v", name, d.Digest, err)
		}
		if _, err := read(t, s, inOrigin, 0, inOrigin.Size); err != nil {
			t.Errorf("%s: Fetch: %v", name, err)
		}
		n := 0
		for _, err := range s.Referrers(t.Context(), ocispec.Descriptor{Digest: someDigest}, "") {
			if n++; err != nil {
				t.Errorf("%s: Referrers: %v", name, err)
			}
		}
		tags := 0
		for _, err := range s.Tags(t.Context()) {
			if tags++; err != nil {
				t.Errorf("%s: Tags: %v", name, err)
			}
		}
		if n != 1 || tags == 0 {
			t.Errorf("%s: %d referrers, %d tags", name, n, tags)
		}
		if by := s.(registry.Answered).AnsweredBy(); len(by) != 0 && name != "silly" {
			t.Errorf("%s: AnsweredBy = %q", name, by)
		}
	}
}

// A mirror that has not seen a referrer yet must not hide it.
func TestEmptyListingsOfMirrorsDoNotCount(t *testing.T) {
	_, origin, _, _, _ := twins(t)
	empty := ociserver.New()
	s := mirrored(t, origin, registry.Mirror{URL: "http://" + serve(t, empty), Resolve: true})
	n := 0
	for _, err := range s.Referrers(t.Context(), ocispec.Descriptor{Digest: someDigest}, "") {
		if n++; err != nil {
			t.Error(err)
		}
	}
	if n != 1 || empty.Requests("GET referrers") != 1 {
		t.Errorf("%d referrers after %d requests to the mirror, want 1 after 1", n, empty.Requests("GET referrers"))
	}
}

func TestWritersReadBackFromTheRegistry(t *testing.T) {
	_, origin, host, inMirror, _ := twins(t)
	s := mirrored(t, origin, registry.Mirror{URL: "http://" + host, Resolve: true})
	if d, err := s.Resolve(t.Context(), "v1"); err != nil || d.Digest != inMirror.Digest {
		t.Fatalf("Resolve = %s, %v; want that of the mirror", d.Digest, err)
	}
	m := pushManifest(t, s, "new", nil)
	if err := s.Tag(t.Context(), m, "v1"); err != nil {
		t.Fatal(err)
	}
	if d, err := s.Resolve(t.Context(), "v1"); err != nil || d.Digest != m.Digest {
		t.Errorf("after Tag: Resolve = %s, %v; want %s", d.Digest, err, m.Digest)
	}
}
