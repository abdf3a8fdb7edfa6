// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/registry"
	"github.com/modelsec/modelsec-go/registry/mirrors"
)

// certificateAndKey makes a certificate for a client, as PEM.
func certificateAndKey(t *testing.T) (certificate, key []byte, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certificate)
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), pool
}

func writeAll(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A registry with an authority of its own, which asks for a certificate, is
// reached with what the directory holds, and only with all of it.
func TestCertificatesOfDockerOpenTheRegistry(t *testing.T) {
	certificate, key, pool := certificateAndKey(t)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "https://")
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, c := range map[string]struct {
		files map[string][]byte
		works bool
	}{
		"all":          {map[string][]byte{"ca.crt": authority, "me.cert": certificate, "me.key": key, "README": nil}, true},
		"no authority": {map[string][]byte{"me.cert": certificate, "me.key": key}, false},
		"no client":    {map[string][]byte{"ca.crt": authority}, false},
	} {
		user, machine := t.TempDir(), t.TempDir()
		writeAll(t, filepath.Join(user, host), c.files)
		// The directory of the machine is for hosts that the user has none for.
		writeAll(t, filepath.Join(machine, host), map[string][]byte{"broken.crt": nil})
		hosts, err := mirrors.Certificates([]string{filepath.Join(user, "absent"), user, machine}, host, "other.example.com")
		if err != nil {
			t.Fatal(err)
		}
		if len(hosts) != 1 {
			t.Errorf("%s: got %d hosts, want one", name, len(hosts))
		}
		client := &registry.Client{Hosts: hosts}
		s, err := client.Open(t.Context(), host+"/team/model")
		if err != nil {
			t.Fatal(err)
		}
		if _, err = s.Resolve(t.Context(), "v1"); errors.Is(err, registry.ErrNotFound) != c.works {
			t.Errorf("%s: got error %v", name, err)
		}
	}
}

func TestCertificatesRefusesHalfOfWhatItNeeds(t *testing.T) {
	certificate, key, _ := certificateAndKey(t)
	_, other, _ := certificateAndKey(t)
	for name, files := range map[string]map[string][]byte{
		"key alone":         {"me.key": key},
		"certificate alone": {"me.cert": certificate},
		"other key":         {"me.cert": certificate, "me.key": other},
		"empty authority":   {"ca.crt": nil},
		"key as authority":  {"ca.crt": key},
		"endless":           {"ca.crt": make([]byte, 2<<20)},
	} {
		dir := t.TempDir()
		writeAll(t, filepath.Join(dir, "example.com"), files)
		if _, err := mirrors.Certificates([]string{dir}, "example.com"); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	for _, host := range []string{"", "..", "../x", "example.com/x", "oci:x"} {
		if _, err := mirrors.Certificates([]string{t.TempDir()}, host); err == nil {
			t.Errorf("host %q: no error", host)
		}
	}
	empty := t.TempDir()
	writeAll(t, filepath.Join(empty, "example.com"), nil)
	if hosts, err := mirrors.Certificates([]string{empty}, "example.com"); err != nil || len(hosts) != 0 {
		t.Errorf("empty directory: %v, %v", hosts, err)
	}
}

func TestCertificateDirsAreThoseOfPodmanThenDocker(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", "/home/someone/.config")
	want := []string{"/home/someone/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"}
	if got := mirrors.CertificateDirs(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
