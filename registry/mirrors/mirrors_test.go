// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors_test

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/registry"
	"github.com/modelsec/modelsec-go/registry/mirrors"
)

const (
	conf  = "testdata/registries.conf"
	certs = "testdata/certs.d"
)

// show writes mirrors in one line each.
func show(h registry.Host) (lines []string) {
	for _, m := range h.Mirrors {
		line := m.URL
		if m.Resolve {
			line += " resolve"
		}
		if m.Namespace {
			line += " ns"
		}
		if m.Under != "" {
			line += " under " + m.Under
		}
		for name, values := range m.Header {
			line += fmt.Sprintf(" %s=%s", name, strings.Join(values, ","))
		}
		lines = append(lines, line)
	}
	return lines
}

func TestContainersFollowsTheLongestPrefix(t *testing.T) {
	for _, c := range []struct {
		name  string
		plain bool
		want  []string
	}{
		{"registry.example.com", false, []string{"https://cache-0.internal:5000/proxy", "http://cache-1.internal:5000 resolve"}},
		{"registry.example.com/other/model", false, []string{"https://cache-0.internal:5000/proxy", "http://cache-1.internal:5000 resolve"}},
		{"registry.example.com/teams/model", false, []string{"https://cache-0.internal:5000/proxy", "http://cache-1.internal:5000 resolve"}},
		{"registry.example.com/team/model", false, []string{"https://team-cache.internal/models resolve under team"}},
		{"registry.example.com/team", false, []string{"https://team-cache.internal/models resolve under team"}},
		{"registry.example.com:5000/team/model", false, nil},
		{"eu.wild.example.com/a", false, []string{"https://wild-cache.internal/wild resolve"}},
		{"a.b.wild.example.com/a", false, []string{"https://wild-cache.internal/wild resolve"}},
		{"wild.example.com/a", false, nil},
		{"old.example.com/foo/image", false, []string{"http://new.example.net/bar resolve under foo"}},
		{"old.example.com/image", false, nil},
		{"plain.example.com:5000/a", true, nil},
		{"digests.example.com/a", false, []string{"https://any.internal"}},
		{"dropped.example.com/a", false, []string{"https://later.internal resolve"}},
		{"docker.io/library/x", false, nil},
	} {
		hosts, err := mirrors.Containers(conf, c.name)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		host, _, _ := strings.Cut(c.name, "/")
		if got := show(hosts[host]); !slices.Equal(got, c.want) || hosts[host].PlainHTTP != c.plain {
			t.Errorf("%s: got %q, plain HTTP %v; want %q, %v", c.name, got, hosts[host].PlainHTTP, c.want, c.plain)
		}
		// What was read can be opened.
		if strings.Contains(c.name, "/") {
			if _, err := (&registry.Client{Hosts: hosts}).Open(t.Context(), c.name); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestContainersRefuses(t *testing.T) {
	for name, names := range map[string][]string{
		"blocked":                 {"bad.example.com/a"},
		"two tables for one host": {"registry.example.com/a", "registry.example.com/team/a"},
		"reference with a tag":    {"registry.example.com/a:v1"},
		"no host":                 {"a"},
		"layout":                  {"oci:dir"},
	} {
		if _, err := mirrors.Containers(conf, names...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for name, text := range map[string]string{
		"not TOML":          "[[registry",
		"version 1":         "[registries.search]\nregistries = ['docker.io']",
		"unknown key":       "[[registry]]\nlocation='example.com'\ninsecrue=true",
		"unknown in mirror": "[[registry]]\nlocation='example.com'\n[[registry.mirror]]\nlocation='m.example.com'\ninsecrue=true",
		"other pull":        "[[registry]]\nlocation='example.com'\n[[registry.mirror]]\nlocation='m.example.com'\npull-from-mirror='some'",
		"both forms":        "[[registry]]\nlocation='example.com'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='m.example.com'\npull-from-mirror='all'",
		"no location":       "[[registry]]\ninsecure=true",
		"address":           "[[registry]]\nlocation='https://example.com'",
		"mirror's address":  "[[registry]]\nlocation='example.com'\n[[registry.mirror]]\nlocation='https://m.example.com'",
		"wrong type":        "[[registry]]\nlocation=1",
	} {
		file := filepath.Join(t.TempDir(), "registries.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := mirrors.Containers(file, "example.com/a"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if hosts, err := mirrors.Containers(filepath.Join(t.TempDir(), "absent.conf"), "example.com/a"); err != nil || len(hosts["example.com"].Mirrors) != 0 {
		t.Errorf("absent file: %v, %v", hosts, err)
	}
}

func TestContainersFileIsThatOfTheUser(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(home, ".config"))
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "")
	if got := mirrors.ContainersFile(); got != "/etc/containers/registries.conf" {
		t.Errorf("got %s", got)
	}
	own := filepath.Join(home, ".config", "containers", "registries.conf")
	if err := os.MkdirAll(filepath.Dir(own), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mirrors.ContainersFile(); got != own {
		t.Errorf("got %s, want %s", got, own)
	}
	t.Setenv("CONTAINERS_REGISTRIES_CONF", "/elsewhere")
	if got := mirrors.ContainersFile(); got != "/elsewhere" {
		t.Errorf("got %s, want /elsewhere", got)
	}
}

func TestContainerdReadsHostsInOrder(t *testing.T) {
	hosts, err := mirrors.Containerd(certs, "docker.io", "registry.example.com:5000", "art.example.com", "anything.example.com", "own.example.com")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string][]string{
		"docker.io": {
			"https://public-mirror.example.com ns", "https://docker-mirror.internal resolve ns",
			"http://127.0.0.1:4001 resolve ns X-Dragonfly-Registry=https://index.docker.io",
		},
		"registry.example.com:5000": {"https://harbor.internal/v2/proxy resolve ns", "https://cache.internal/path/v2 resolve ns"},
		"art.example.com":           {"https://art.internal/artifactory/api/docker/hub/v2 ns"},
		"anything.example.com":      {"http://192.168.31.250:5000 resolve ns", "https://registry.internal resolve ns"},
		"own.example.com":           nil,
	} {
		if got := show(hosts[host]); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", host, got, want)
		}
		if _, err := (&registry.Client{Hosts: hosts}).Open(t.Context(), host+"/team/model"); err != nil {
			t.Error(err)
		}
	}
	if !hosts["own.example.com"].PlainHTTP {
		t.Error("http for the host itself was not heard")
	}
	for _, host := range []string{"docker-mirror.internal", "registry.example.com:5000"} {
		if config := hosts[host].TLS; config == nil || config.RootCAs == nil || config.InsecureSkipVerify {
			t.Errorf("%s: TLS is %+v", host, config)
		}
	}
	if hosts["public-mirror.example.com"].TLS != nil {
		t.Error("authority of one mirror is used for another")
	}
}

func TestContainerdRefuses(t *testing.T) {
	if _, err := mirrors.Containerd(certs, "skip.example.com"); err == nil || !strings.Contains(err.Error(), "skip_verify") {
		t.Errorf("skip_verify: got error %v", err)
	}
	for _, host := range []string{"", "..", "../docker.io", "docker.io/library", "Docker.io", "a"} {
		if _, err := mirrors.Containerd(certs, host); err == nil {
			t.Errorf("host %q: no error", host)
		}
	}
	for name, text := range map[string]string{
		"not TOML":         "server = ",
		"skip_verify":      "[host.'https://m.example.com']\nskip_verify = true",
		"unknown key":      "[host.'https://m.example.com']\nskip_verfy = true",
		"proxy":            "proxy = 'http://p.example.com'",
		"scheme":           "[host.'ftp://m.example.com']",
		"password":         "[host.'https://u:p@m.example.com']",
		"query":            "[host.'https://m.example.com/?a=b']",
		"no host":          "[host.'https://']",
		"path without v2":  "[host.'https://m.example.com/api']\noverride_path = true",
		"header of number": "[host.'https://m.example.com']\nheader = {a = 1}",
		"ca of number":     "[host.'https://m.example.com']\nca = 1",
		"absent ca":        "[host.'https://m.example.com']\nca = 'absent.crt'",
		"empty ca":         "[host.'https://m.example.com']\nca = 'hosts.toml'",
		"absent client":    "[host.'https://m.example.com']\nclient = 'absent.pem'",
		"three of client":  "[host.'https://m.example.com']\nclient = [['a','b','c']]",
		"empty client":     "[host.'https://m.example.com']\nclient = [[]]",
		"own headers":      "server = 'https://example.com'\nheader = {a = 'b'}",
		"two certificates": "[host.'https://m.example.com']\nca='a.crt'\n[host.'https://m.example.com/x']\nca='b.crt'",
	} {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "example.com"), 0o700); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(certs, "docker.io", "mirror.crt"))
		if err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string][]byte{"hosts.toml": []byte(text), "a.crt": b, "b.crt": b} {
			if err := os.WriteFile(filepath.Join(dir, "example.com", file), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := mirrors.Containerd(dir, "example.com"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if hosts, err := mirrors.Containerd(t.TempDir(), "example.com"); err != nil || len(hosts) != 0 {
		t.Errorf("absent files: %v, %v", hosts, err)
	}
}

// The authority named in the file is what makes the mirror reachable.
func TestContainerdMirrorIsSpokenToWithItsAuthority(t *testing.T) {
	asked := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.URL.Query().Get("ns") != "example.com" || r.Header.Get("X-Test") != "a" {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "example.com"), 0o700); err != nil {
		t.Fatal(err)
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	text := fmt.Appendf(nil, "[host.%q]\ncapabilities = ['pull']\nca = 'ca.pem'\nheader = {x-test = 'a'}\n", server.URL)
	for file, b := range map[string][]byte{"ca.pem": ca, "hosts.toml": text} {
		if err := os.WriteFile(filepath.Join(dir, "example.com", file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	hosts, err := mirrors.Containerd(dir, "example.com")
	if err != nil {
		t.Fatal(err)
	}
	s, err := (&registry.Client{Hosts: hosts}).Open(t.Context(), "example.com/team/model")
	if err != nil {
		t.Fatal(err)
	}
	mirror := s.(registry.Sourced).Sources()[0]
	if _, err := mirror.Fetch(t.Context(), blob, 0, blob.Size); err == nil || asked != 1 {
		t.Errorf("got error %v after %d requests, want one", err, asked)
	}
}
