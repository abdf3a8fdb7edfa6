// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
	"github.com/modelsec/modelsec-go/registry/registrytest"
)

// open returns a store of o that can be written.
func open(t *testing.T, o registry.Opener, name string) registry.WriteStore {
	t.Helper()
	s, err := o.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.(registry.WriteStore)
}

// anonymous keeps the tests away from the credentials of whoever runs them.
func anonymous(context.Context, string) (registry.Credential, error) {
	return registry.Credential{}, nil
}

// serve starts h and returns its host.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// remote returns a repository of a server, opened by a client of its own.
func remote(t *testing.T, h http.Handler) registry.WriteStore {
	t.Helper()
	return open(t, &registry.Client{Credentials: anonymous}, serve(t, h)+"/team/model")
}

func TestMemory(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.WriteStore { return open(t, registry.NewMemory(), "example.com/team/model") })
}

func TestLayout(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registry.WriteStore {
		return open(t, new(registry.Client), "oci:"+filepath.Join(t.TempDir(), "layout"))
	})
}

func TestRemote(t *testing.T) {
	for name, server := range map[string]func(*testing.T) *ociserver.Server{
		"with the referrers API": func(*testing.T) *ociserver.Server { s := ociserver.New(); s.PageSize = 4; return s },
		"without the referrers API": func(*testing.T) *ociserver.Server {
			s := ociserver.New()
			s.PageSize = 4
			s.NoReferrers = true
			return s
		},
		"without deletion": func(*testing.T) *ociserver.Server { s := ociserver.New(); s.NoDelete = true; return s },
		"on disk": func(t *testing.T) *ociserver.Server {
			s, err := ociserver.NewDir(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			return s
		},
	} {
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(t *testing.T) registry.WriteStore { return remote(t, server(t)) })
		})
	}
}

func TestRemoteFaults(t *testing.T) {
	registrytest.RunFaults(t, func(t *testing.T, server http.Handler) registry.WriteStore { return remote(t, server) })
}
