// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

func TestCredentialsComeFromDockerThenPodman(t *testing.T) {
	server := ociserver.New()
	var got string
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _, ok := r.BasicAuth(); ok {
			got = user
			server.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	home := t.TempDir()
	write := func(path, user string) {
		t.Helper()
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
		if err := os.WriteFile(path, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", filepath.Join(home, "docker"))
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "authfile.json"))
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
	resolve := func() error {
		_, err := open(t, new(registry.Client), host+"/team/model").Resolve(t.Context(), "v1")
		return err
	}
	if err := resolve(); !errors.Is(err, registry.ErrUnauthorized) {
		t.Errorf("no files: got error %v, want ErrUnauthorized", err)
	}
	for _, c := range []struct{ path, user string }{
		{".config/containers/auth.json", "home"},
		{"run/containers/auth.json", "runtime"},
		{"authfile.json", "file"},
		{"docker/config.json", "docker"},
	} {
		write(c.path, c.user)
		if err := resolve(); !errors.Is(err, registry.ErrNotFound) || got != c.user {
			t.Errorf("%s: got user %q and error %v, want %q", c.path, got, err, c.user)
		}
	}
}

// Podman's files may hold a credential for a part of a host. It is shown for
// that part and for nothing else.
func TestCredentialsOfNamespacesStayThere(t *testing.T) {
	server := ociserver.New()
	var mu sync.Mutex
	shown := make(map[string]string) // by path, the last user
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _, ok := r.BasicAuth()
		mu.Lock()
		shown[r.URL.Path] = user
		mu.Unlock()
		if !ok {
			w.Header().Set("WWW-Authenticate", "Basic")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		server.ServeHTTP(w, r)
	}))
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("XDG_RUNTIME_DIR", home)
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "auth.json"))
	key := func(user string) string {
		return fmt.Sprintf(`{"auth":%q}`, base64.StdEncoding.EncodeToString([]byte(user+":"+secret)))
	}
	for _, c := range []struct {
		file string
		want map[string]string // user, by repository; "": none is shown
	}{
		{`{"auths":{"HOST/team":` + key("team") + `,"HOST/team/model":` + key("model") + `}}`,
			map[string]string{"team/model": "model", "team/model/sub": "model", "team/other": "team", "teams/model": "", "other": ""}},
		{`{"auths":{"HOST/team":` + key("team") + `,"HOST":` + key("host") + `}}`,
			map[string]string{"team/model": "team", "other/model": "host"}},
		{`{"auths":{"HOST/team":` + key("team") + `,"https://HOST/v1/":` + key("legacy") + `}}`,
			map[string]string{"team/model": "team", "other/model": "legacy"}},
		{`{}`, map[string]string{"team/model": ""}},
		{``, map[string]string{"team/model": ""}},
	} {
		text := strings.ReplaceAll(c.file, "HOST", host)
		if err := os.WriteFile(filepath.Join(home, "auth.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		client := new(registry.Client)
		// Twice, because passwords are kept.
		for range 2 {
			for repository, want := range c.want {
				_, err := open(t, client, host+"/"+repository).Resolve(t.Context(), "v1")
				if wantErr := registry.ErrNotFound; want != "" && !errors.Is(err, wantErr) || want == "" && !errors.Is(err, registry.ErrUnauthorized) {
					t.Errorf("%s: %s: got error %v", c.file, repository, err)
				}
				if got := shown["/v2/"+repository+"/manifests/v1"]; got != want {
					t.Errorf("%s: %s: got user %q, want %q", c.file, repository, got, want)
				}
			}
		}
	}
	for _, text := range []string{"{", "[]", `{"auths":[]}`, strings.Repeat(" ", 2<<20)} {
		if err := os.WriteFile(filepath.Join(home, "auth.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := open(t, new(registry.Client), host+"/team/model").Resolve(t.Context(), "v1"); err == nil || errors.Is(err, registry.ErrNotFound) {
			t.Errorf("%.10q: got error %v, want one about the file", text, err)
		}
	}
}
