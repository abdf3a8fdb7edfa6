// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startRegistry runs Debian's docker-registry and returns its address. Where it
// is absent the test is skipped, and fails where CI=true: CI installs it.
func startRegistry(t *testing.T, deletes bool) string {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("docker-registry is not installed (apt-get install docker-registry)")
		}
		t.Skip("docker-registry is not installed (apt-get install docker-registry)")
	}
	address := freeAddress(t)
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}, delete: {enabled: %t}}\nhttp: {addr: %q}\n",
		filepath.Join(dir, "data"), deletes, address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program, "serve", config)
	var output bytes.Buffer // of every 404, which are part of the protocol
	c.Stderr = &output
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
	})
	for range 100 {
		resp, err := http.Get("http://" + address + "/v2/")
		if err == nil {
			resp.Body.Close()
			return address
		}
		time.Sleep(100 * time.Millisecond)
	}
	c.Process.Kill()
	c.Wait()
	t.Fatalf("docker-registry does not answer at %s:\n%s", address, &output)
	return ""
}

const (
	gateUser     = "somebody"
	gatePassword = "secret"
)

// startGate puts TLS and a login before a registry. It returns the address and
// the certificate as PEM.
func startGate(t *testing.T, registry string) (address string, certificate []byte) {
	t.Helper()
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: registry})
		r.SetXForwarded()
		r.Out.Host = r.In.Host // or the registry would send its clients around us
	}}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != gateUser || password != gatePassword {
			w.Header().Set("WWW-Authenticate", `Basic realm="gate"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		forward.ServeHTTP(w, req)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of clients that do not trust the certificate
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// writeGate leaves what it takes to pass the gate in the directory of a script.
func writeGate(dir, address string, certificate []byte) error {
	login := base64.StdEncoding.EncodeToString([]byte(gateUser + ":" + gatePassword))
	if err := os.Mkdir(filepath.Join(dir, "login"), 0o700); err != nil {
		return err
	}
	config := fmt.Sprintf(`{"auths": {%q: {"auth": %q}}}`, address, login)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "ca.pem"), certificate, 0o600),
		os.WriteFile(filepath.Join(dir, "login", "config.json"), []byte(config), 0o600))
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
