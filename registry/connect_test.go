// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// tunnel is a proxy that serves CONNECT and nothing else. It sends everybody to
// one address, as a proxy that resolves names does for a name of its own.
type tunnel struct {
	t  *testing.T
	to string

	asked atomic.Int64
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.asked.Add(1)
	if r.Method != http.MethodConnect || r.Host != "registry.example.com:443" {
		p.t.Errorf("the proxy was asked to %s %s", r.Method, r.Host)
	}
	if r.Header.Get("Authorization") != "" {
		p.t.Error("the proxy was shown the credential of the registry")
	}
	if user, password, ok := (&http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}).BasicAuth(); !ok || user != "me" || password != "mine" {
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	out, err := net.Dial("tcp", p.to)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer out.Close()
	in, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		p.t.Error(err)
		return
	}
	defer in.Close()
	io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(out, buffered)
		out.Close()
	}()
	io.Copy(in, out)
}

// TestRegistryIsReachedThroughAConnectProxy pushes and pulls over TLS through a
// proxy that wants a password, spoken to in the clear and over TLS. The proxy
// sees where to, and no credential; the registry does not see the proxy's.
func TestRegistryIsReachedThroughAConnectProxy(t *testing.T) {
	const inner = "MODELSEC_TEST_BEHIND_TUNNEL"
	if os.Getenv(inner) != "" {
		throughProxy(t)
		return
	}
	r := &recorder{Handler: ociserver.New()}
	server := httptest.NewTLSServer(r)
	defer server.Close()
	p := &tunnel{t: t, to: server.Listener.Addr().String()}
	for name, proxy := range map[string]*httptest.Server{"http": httptest.NewServer(p), "https": httptest.NewTLSServer(p)} {
		address := strings.Replace(proxy.URL, "://", "://me:mine@", 1)
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		command.Env = append(os.Environ(), inner+"=1", "HTTPS_PROXY="+address, "https_proxy=", "NO_PROXY=", "no_proxy=")
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("proxy over %s: %v\n%s", name, err, out)
		}
		proxy.CloseClientConnections()
		proxy.Close()
		if p.asked.Swap(0) == 0 {
			t.Errorf("the proxy over %s was not asked", name)
		}
		requests := r.take()
		if len(requests) == 0 {
			t.Errorf("nothing came through the proxy over %s", name)
		}
		for _, req := range requests {
			if req.Header.Get("Proxy-Authorization") != "" {
				t.Error("the registry was shown the credential of the proxy")
			}
		}
	}
}

// throughProxy runs in a process of its own, since net/http reads the
// environment once.
func throughProxy(t *testing.T) {
	server := httptest.NewTLSServer(nil) // has the certificate of all of httptest
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	c := &registry.Client{
		Credentials: func(context.Context, string) (registry.Credential, error) {
			return registry.Credential{Username: "user", Password: secret}, nil
		},
		Hosts: map[string]registry.Host{"registry.example.com": {TLS: &tls.Config{RootCAs: roots}}},
	}
	s := open(t, c, "registry.example.com/team/model")
	d := pushBlob(t, s, pattern(3_000_000))
	for off := int64(0); off < d.Size; off += 1_000_000 {
		if _, err := read(t, s, d, off, 1_000_000); err != nil {
			t.Error(err)
		}
	}
}
