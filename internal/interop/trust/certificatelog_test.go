// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	stdx509 "crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509"
)

// certificateLog promises to log certificates, which is all that verifiers can
// see of a log without asking it. sigstore-python takes no certificate without.
type certificateLog struct {
	server *httptest.Server
	key    *ecdsa.PrivateKey
	id     [sha256.Size]byte
}

func newCertificateLog() (*certificateLog, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := stdx509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	l := &certificateLog{key: key, id: sha256.Sum256(der)}
	l.server = httptest.NewServer(l)
	return l, nil
}

// ServeHTTP answers ct/v1/add-pre-chain (RFC 6962 §4.2).
func (l *certificateLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var asked ct.AddChainRequest
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.URL.Path != ct.AddPreChainPath {
		http.Error(w, "want "+ct.AddPreChainPath, http.StatusBadRequest)
		return
	}
	promise, err := l.promise(asked.Chain)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(promise)
}

func (l *certificateLog) promise(chain [][]byte) (*ct.AddChainResponse, error) {
	var certificates []*x509.Certificate
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if x509.IsFatal(err) {
			return nil, err
		}
		certificates = append(certificates, c)
	}
	now := uint64(time.Now().UnixMilli())
	leaf, err := ct.MerkleTreeLeafFromChain(certificates, ct.PrecertLogEntryType, now)
	if err != nil {
		return nil, err
	}
	message, err := ct.SerializeSCTSignatureInput(ct.SignedCertificateTimestamp{SCTVersion: ct.V1, Timestamp: now}, ct.LogEntry{Leaf: *leaf})
	if err != nil {
		return nil, err
	}
	signature, err := tls.CreateSignature(*l.key, tls.SHA256, message)
	if err != nil {
		return nil, err
	}
	text, err := tls.Marshal(signature)
	if err != nil {
		return nil, err
	}
	return &ct.AddChainResponse{SCTVersion: ct.V1, ID: l.id[:], Timestamp: now, Signature: text}, nil
}
