// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// TestCertificateThatChangesMidPullIsFinal: who answers from the second
// connection on is somebody else. Nothing is asked of him, not in the clear
// either.
func TestCertificateThatChangesMidPullIsFinal(t *testing.T) {
	r := &recorder{Handler: ociserver.New()}
	server := httptest.NewUnstartedServer(r)
	server.Config.ErrorLog = quiet
	stranger := strangerCertificate(t)
	var changed atomic.Bool
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if changed.Load() {
			return &tls.Config{Certificates: []tls.Certificate{stranger}}, nil
		}
		return nil, nil
	}}
	server.StartTLS()
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{host: {TLS: trusting(server)}}}
	s := open(t, c, host+"/team/model")
	b := pattern(1 << 20)
	d := pushBlob(t, s, b)
	if _, err := read(t, s, d, 0, 1000); err != nil {
		t.Fatal(err)
	}
	changed.Store(true)
	server.CloseClientConnections()
	r.take()
	_, err := read(t, s, d, 1000, 1000)
	var e *registry.Error
	var verification *tls.CertificateVerificationError
	if !errors.As(err, &verification) || !errors.As(err, &e) || e.Temporary() {
		t.Errorf("got error %v, want a lasting certificate error", err)
	}
	if n := len(r.take()); n != 0 {
		t.Errorf("%d requests reached the stranger", n)
	}
	changed.Store(false)
	if _, err := read(t, s, d, 1000, 1000); err != nil {
		t.Errorf("when the registry is back: %v", err)
	}
}

// strangerCertificate is valid for the host, and of an authority that nobody
// knows.
func strangerCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// unresolved is a transport whose host has no address.
type unresolved struct {
	err   net.DNSError
	asked int
}

func (u *unresolved) RoundTrip(*http.Request) (*http.Response, error) {
	u.asked++
	return nil, &net.OpError{Op: "dial", Err: &u.err}
}

// TestNamesThatDoNotResolveAreFinalOrTriedAgain: a name that does not exist is
// an error at once, a resolver that does not answer may answer later.
func TestNamesThatDoNotResolveAreFinalOrTriedAgain(t *testing.T) {
	for _, c := range []struct {
		err       net.DNSError
		temporary bool
		asked     int
	}{
		{net.DNSError{Err: "no such host", Name: "example.com", IsNotFound: true}, false, 1},
		{net.DNSError{Err: "i/o timeout", Name: "example.com", IsTimeout: true}, true, registry.MaxAttempts},
		{net.DNSError{Err: "server misbehaving", Name: "example.com", IsTemporary: true}, true, registry.MaxAttempts},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := &unresolved{err: c.err}
			client := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{"example.com": {Transport: u}}}
			_, err := open(t, client, "example.com/team/model").Resolve(t.Context(), "v1")
			var e *registry.Error
			if !errors.As(err, &e) || e.Temporary() != c.temporary || e.Host != "example.com" || u.asked != c.asked {
				t.Errorf("%s: got error %v after %d requests, want %d, temporary %v", c.err.Err, err, u.asked, c.asked, c.temporary)
			}
		})
	}
}
