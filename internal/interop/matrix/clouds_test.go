// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/modelsec/modelsec-go/encrypt/awskms/awskmstest"
	"github.com/modelsec/modelsec-go/encrypt/azurekms/azurekmstest"
	"github.com/modelsec/modelsec-go/encrypt/gcpkms/gcpkmstest"
)

// aws is reached with static credentials.
func aws(t *testing.T) provider {
	const arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890a"
	s := awskmstest.New()
	s.CreateKey(arn + "b")
	s.CreateKey(arn + "c")
	p := provider{secrets: [][]byte{[]byte(s.SecretAccessKey)}, requests: s.Requests, service: s.Service(arn + "b")}
	h := httptest.NewServer(s)
	t.Cleanup(h.Close)
	p.recipient, p.stranger = "awskms:///"+arn+"b?endpoint="+h.URL, "awskms:///"+arn+"c?endpoint="+h.URL
	p.identity = p.recipient
	p.env = []string{"AWS_ACCESS_KEY_ID=" + s.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + s.SecretAccessKey, "AWS_EC2_METADATA_DISABLED=true"}
	return p
}

// google is reached by workload identity federation.
func google(t *testing.T) provider {
	const ring = "projects/models/locations/global/keyRings/weights/cryptoKeys/"
	s := gcpkmstest.New()
	s.Token = rand.Text()
	s.Rotate(ring + "release")
	s.Rotate(ring + "another")
	p := provider{secrets: [][]byte{[]byte(s.Token)}, requests: s.Requests, service: s.Service(ring + "release")}
	c, ca := newCertificate(t, "cloudkms.example.com")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(c)))
	s.Register(g)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	sts, platform := newAuthority(t, c, s.Token)
	account := filepath.Join(t.TempDir(), "account.json")
	text := fmt.Sprintf(`{"type":"external_account","audience":"//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
		"subject_token_type":"urn:ietf:params:oauth:token-type:jwt","token_url":"https://%s/v1/token","credential_source":{"file":%q}}`, sts, platform)
	if err := os.WriteFile(account, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := "?endpoint=" + l.Addr().String()
	p.recipient, p.stranger = "gcpkms://"+ring+"release"+endpoint, "gcpkms://"+ring+"another"+endpoint
	p.identity = p.recipient
	p.env = []string{"GOOGLE_APPLICATION_CREDENTIALS=" + account, "SSL_CERT_FILE=" + ca}
	return p
}

// azure is reached by workload identity, at a private endpoint.
func azure(t *testing.T, kind string) provider {
	const vault = "models.vault.azure.net"
	s := azurekmstest.New(vault, rand.Text())
	var query string
	switch kind {
	case "RSA":
		query = "?endpoint="
		s.RotateRSA("release")
		s.RotateRSA("another")
	case "AES":
		query = "?algorithm=A256KW&endpoint="
		s.RotateAES("release")
		s.RotateAES("another")
	}
	p := provider{classical: kind == "RSA", secrets: [][]byte{[]byte(s.Token)}, requests: s.Requests, service: s.Service("release")}
	c, ca := newCertificate(t, vault)
	entra, platform := newAuthority(t, c, s.Token)
	query += serveTLS(t, c, s)
	p.recipient, p.stranger = "azurekms://"+vault+"/release"+query, "azurekms://"+vault+"/another"+query
	p.identity = p.recipient
	p.env = []string{
		"AZURE_AUTHORITY_HOST=https://" + entra + "/", "AZURE_TENANT_ID=tenant", "AZURE_CLIENT_ID=client",
		"AZURE_FEDERATED_TOKEN_FILE=" + platform, "SSL_CERT_FILE=" + ca,
	}
	return p
}
