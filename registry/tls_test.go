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
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// trusting is the configuration of a client that knows the server's authority.
func trusting(server *httptest.Server) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return &tls.Config{RootCAs: roots}
}

func clientCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestClientCertificateIsShown(t *testing.T) {
	certificate, authorities := clientCertificate(t)
	server := httptest.NewUnstartedServer(ociserver.New())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: authorities}
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "https://")
	shown := 0
	rotating := trusting(server)
	rotating.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		shown++
		return &certificate, nil
	}
	fixed := trusting(server)
	fixed.Certificates = []tls.Certificate{certificate}
	for name, config := range map[string]*tls.Config{"none": trusting(server), "fixed": fixed, "rotating": rotating} {
		c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{host: {TLS: config}}}
		s := open(t, c, host+"/team/model")
		_, err := s.Resolve(t.Context(), "v1")
		var e *registry.Error
		switch {
		case name == "none":
			if errors.Is(err, registry.ErrNotFound) || !errors.As(err, &e) || e.Temporary() {
				t.Errorf("without a certificate: got error %v, want a lasting one", err)
			}
		case !errors.Is(err, registry.ErrNotFound):
			t.Errorf("%s: got error %v, want ErrNotFound", name, err)
		default:
			d := pushBlob(t, s, pattern(100_000))
			if _, err := read(t, s, d, 1, 1000); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if shown == 0 {
		t.Error("GetClientCertificate was not asked")
	}
}

func TestMirrorUsesTheTLSOfItsOwnHost(t *testing.T) {
	server := httptest.NewUnstartedServer(ociserver.New())
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	mirror, host := strings.TrimPrefix(server.URL, "https://"), serve(t, ociserver.New())
	for _, trusted := range []bool{false, true} {
		hosts := map[string]registry.Host{host: {Mirrors: []registry.Mirror{{URL: server.URL}}}}
		if trusted {
			hosts[mirror] = registry.Host{TLS: trusting(server)}
		}
		s := open(t, &registry.Client{Credentials: anonymous, Hosts: hosts}, host+"/team/model")
		_, err := s.(registry.Sourced).Sources()[0].Fetch(t.Context(), ocispec.Descriptor{Digest: someDigest, Size: 1}, 0, 1)
		if err == nil || errors.Is(err, registry.ErrNotFound) != trusted {
			t.Errorf("trusted %v: got error %v", trusted, err)
		}
	}
}
