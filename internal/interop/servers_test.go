// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	sloppy "github.com/google/go-containerregistry/pkg/registry"
	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/sirupsen/logrus"
)

// server is a registry that somebody else wrote.
type server struct {
	host string
	// blobs is where the registry keeps its blobs, as sha256/ab/abcd…/data;
	// empty where they are in memory.
	blobs string
}

// servers are the registries that the library is held against.
var servers = []struct {
	name  string
	start func(*testing.T) server
}{
	{"distribution 3", distribution},
	{"olareg", olaregServer},
	{"go-containerregistry", goContainerRegistry},
	{"docker-registry 2.8", dockerRegistry},
}

func serve(t *testing.T, h http.Handler) server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return server{host: strings.TrimPrefix(s.URL, "http://")}
}

// distribution is the reference implementation. It has no referrers API.
func distribution(t *testing.T) server {
	logrus.SetOutput(io.Discard)
	c := &configuration.Configuration{Storage: configuration.Storage{
		"inmemory":    {},
		"delete":      {"enabled": true},
		"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
	}}
	c.HTTP.Secret = "interop"
	c.Catalog.MaxEntries = 100
	return serve(t, handlers.NewApp(t.Context(), c))
}

// olaregServer has the referrers API, and pages.
func olaregServer(t *testing.T) server {
	yes := true
	h := olareg.New(config.Config{
		Storage: config.ConfigStorage{StoreType: config.StoreMem},
		API:     config.ConfigAPI{DeleteEnabled: &yes, Blob: config.ConfigAPIBlob{DeleteEnabled: &yes}},
		Log:     slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { h.Close() })
	return serve(t, h)
}

// goContainerRegistry is the sloppy one: manifests may name blobs that are not
// there, and its listing of referrers has types of its own invention.
func goContainerRegistry(t *testing.T) server {
	return serve(t, sloppy.New(sloppy.WithReferrersSupport(true), sloppy.Logger(log.New(io.Discard, "", 0))))
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// dockerRegistry is Debian's docker-registry, a process of its own that keeps
// everything on disk. It stands for registries of the years before referrers.
func dockerRegistry(t *testing.T) server {
	t.Helper()
	path := program(t, "docker-registry")
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf(`version: 0.1
log: {level: info}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http: {addr: "127.0.0.1:0", secret: interop}
`, dir)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "serve", file)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "OTEL_TRACES_EXPORTER=none"}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	select {
	case host := <-found:
		return server{host: host, blobs: filepath.Join(dir, "docker/registry/v2/blobs")}
	case <-time.After(30 * time.Second):
		t.Fatal("docker-registry did not begin to listen within 30 seconds")
		panic("unreachable")
	}
}
