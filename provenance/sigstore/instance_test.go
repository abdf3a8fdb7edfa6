// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"
)

const (
	testIssuer  = "https://issuer.example.com"
	testSubject = "https://ci.example.com/job/train"
)

// instance is a certificate authority and a log of version 1, which no real
// service is at hand for; internal/interop/trust has the others. Tests change
// what it issues.
type instance struct {
	*httptest.Server
	authority, intermediate *x509.Certificate
	key                     *ecdsa.PrivateKey
	log                     *ca.VirtualSigstore
	// leaf changes a certificate before it is signed.
	leaf func(*x509.Certificate)
	// logged is the time that the log vouches for, and logLife how long its key
	// is valid for.
	logged  func() time.Time
	logLife time.Duration
}

func newInstance(t testing.TB) *instance {
	t.Helper()
	i := &instance{leaf: func(*x509.Certificate) {}, logged: time.Now, logLife: time.Hour}
	authority, key, err := ca.GenerateRootCa()
	if err != nil {
		t.Fatal(err)
	}
	i.authority = authority
	if i.intermediate, i.key, err = ca.GenerateFulcioIntermediate(authority, key); err != nil {
		t.Fatal(err)
	}
	if i.log, err = ca.NewVirtualSigstore(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	answer := func(status int, serve func(*http.Request) (any, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			out, err := serve(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("ETag", "1")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(out)
		}
	}
	mux.HandleFunc("POST /api/v2/signingCert", answer(http.StatusOK, i.certify))
	mux.HandleFunc("POST /api/v1/log/entries", answer(http.StatusCreated, i.record))
	i.Server = httptest.NewServer(mux)
	t.Cleanup(i.Close)
	return i
}

func (i *instance) authorities() *root.FulcioCertificateAuthority {
	return &root.FulcioCertificateAuthority{Root: i.authority, Intermediates: []*x509.Certificate{i.intermediate},
		ValidityPeriodStart: time.Now().Add(-5 * time.Hour), URI: i.URL}
}

// trustedRoot describes the instance.
func (i *instance) trustedRoot(t testing.TB, authority *root.FulcioCertificateAuthority) []byte {
	t.Helper()
	logs := i.log.RekorLogs()
	for id, l := range logs {
		l.ID = must(hex.DecodeString(id))
		l.ValidityPeriodStart, l.ValidityPeriodEnd = time.Now().Add(-time.Hour), time.Now().Add(i.logLife)
	}
	trusted, err := root.NewTrustedRoot(root.TrustedRootMediaType01, []root.CertificateAuthority{authority}, nil, nil, logs)
	if err != nil {
		t.Fatal(err)
	}
	b, err := trusted.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func service(url string, version int) []map[string]any {
	return []map[string]any{{"url": url, "majorApiVersion": version, "operator": url, "validFor": map[string]string{"start": "2020-01-01T00:00:00Z"}}}
}

// signingConfig names the services of the instance.
func (i *instance) signingConfig(t testing.TB) []byte {
	t.Helper()
	return must(json.Marshal(map[string]any{
		"mediaType": root.SigningConfigMediaType02, "caUrls": service(i.URL, 1), "rekorTlogUrls": service(i.URL, 1),
		"rekorTlogConfig": map[string]string{"selector": "ALL"},
	}))
}

func (i *instance) certify(r *http.Request) (any, error) {
	var in struct {
		PublicKeyRequest struct{ PublicKey struct{ Content string } }
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(in.PublicKeyRequest.PublicKey.Content))
	if block == nil {
		return nil, fmt.Errorf("no public key")
	}
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	subject, err := url.Parse(testSubject)
	if err != nil {
		return nil, err
	}
	issuer, err := asn1.MarshalWithParams(testIssuer, "utf8")
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), URIs: []*url.URL{subject}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(10 * time.Minute),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	i.leaf(template)
	der, err := x509.CreateCertificate(rand.Reader, template, i.intermediate, pub, i.key)
	if err != nil {
		return nil, err
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": []string{text}}}}, nil
}

func (i *instance) record(r *http.Request) (any, error) {
	proposed, err := models.UnmarshalProposedEntry(r.Body, runtime.JSONConsumer())
	if err != nil {
		return nil, err
	}
	entry, err := types.CreateVersionedEntry(proposed)
	if err != nil {
		return nil, err
	}
	body, err := types.CanonicalizeEntry(r.Context(), entry)
	if err != nil {
		return nil, err
	}
	id, err := i.log.RekorLogID()
	if err != nil {
		return nil, err
	}
	proof, err := i.log.GetInclusionProof(body)
	if err != nil {
		return nil, err
	}
	proof.Hashes = []string{} // of a tree with one leaf
	payload := tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: i.logged().Unix(), LogIndex: 0, LogID: id}
	promise, err := i.log.RekorSignPayload(payload)
	if err != nil {
		return nil, err
	}
	return map[string]any{"1": map[string]any{
		"body": payload.Body, "integratedTime": payload.IntegratedTime, "logIndex": 0, "logID": id,
		"verification": map[string]any{"inclusionProof": proof, "signedEntryTimestamp": base64.StdEncoding.EncodeToString(promise)},
	}}, nil
}

// token is what an issuer would hand out, as far as the client reads it.
func token() string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(`{"sub":"job","iss":"`+testIssuer+`"}`)) + "." + enc([]byte("signature"))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// broken answers every request in one way.
func broken(t *testing.T, status int, body io.Reader) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.Copy(w, body)
	}))
	t.Cleanup(s.Close)
	return s
}
