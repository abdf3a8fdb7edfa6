// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// newCertificate returns a certificate for the loopback address and a host, and
// a file by which programs trust it.
func newCertificate(t *testing.T, host string) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "modelsec test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{host}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, file
}

// serveTLS serves until the test ends and returns the address.
func serveTLS(t *testing.T, c *tls.Config, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = c
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of processes that were killed
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// authority is where a workload exchanges the token of its platform for one of
// the cloud, as Entra ID and Google's token service do.
type authority struct {
	platform string // what it accepts
	token    string // what it gives
}

func (a authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodGet { // what Entra ID says of a tenant
		base := "https://" + r.Host + "/" + strings.Split(r.URL.Path, "/")[1]
		json.NewEncoder(w).Encode(map[string]string{
			"issuer": base + "/v2.0", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token",
		})
		return
	}
	if r.FormValue("client_assertion") != a.platform && r.FormValue("subject_token") != a.platform {
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error":"invalid_client"}`)
		return
	}
	fmt.Fprintf(w, `{"access_token":%q,"issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3600}`, a.token)
}

// newAuthority returns its address, and the file with the platform's token.
func newAuthority(t *testing.T, c *tls.Config, token string) (address, file string) {
	t.Helper()
	a := authority{platform: rand.Text(), token: token}
	file = filepath.Join(t.TempDir(), "platform-token")
	if err := os.WriteFile(file, []byte(a.platform), 0o600); err != nil {
		t.Fatal(err)
	}
	return serveTLS(t, c, a), file
}
