// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

const statement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` +
	`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`

func (i *instance) options(t *testing.T) sigstore.SignerOptions {
	return sigstore.SignerOptions{TrustedRoot: i.trustedRoot(t, i.authorities()), SigningConfig: i.signingConfig(t),
		Token: func(context.Context, string) (string, error) { return token(), nil }}
}

func sign(t *testing.T, o sigstore.SignerOptions) (*provenance.Bundle, error) {
	t.Helper()
	s, err := sigstore.NewSigner(o)
	if err != nil {
		t.Fatal(err)
	}
	return s.Sign(t.Context(), provenance.PayloadType, []byte(statement))
}

// TestSignerWithLogOfVersion1: its integrated time is the only one.
func TestSignerWithLogOfVersion1(t *testing.T) {
	i := newInstance(t)
	b, err := sign(t, i.options(t))
	if err != nil {
		t.Fatal(err)
	}
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{i.trustedRoot(t, i.authorities())}}))
	got, err := v.Verify(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	if got.Signer != (provenance.Principal{Issuer: testIssuer, Subject: testSubject}) || got.LogEntries != 1 || got.Timestamps != 0 || got.SCTs != 0 ||
		len(got.Times) != 1 || time.Since(got.Times[0]) > time.Hour || got.Statement.PredicateType != provenance.PredicateCosignSign {
		t.Errorf("proved %+v", got)
	}
	if strings.Contains(string(b.Bytes()), ": ") {
		t.Errorf("bundle has spaces, which differ from one run to the next: %.200s", b.Bytes())
	}
}

// TestVerifierTakesThePromiseOfALog, as cosign 2 kept it in annotations, for an
// entry without its proof.
func TestVerifierTakesThePromiseOfALog(t *testing.T) {
	i := newInstance(t)
	b := must(sign(t, i.options(t)))
	var doc struct {
		DSSEEnvelope json.RawMessage `json:"dsseEnvelope"`
	}
	var entry struct {
		LogIndex, IntegratedTime int64 `json:",string"`
		LogID                    struct{ KeyID []byte }
		InclusionPromise         struct{ SignedEntryTimestamp []byte }
		CanonicalizedBody        []byte
	}
	if err := errors.Join(json.Unmarshal(b.Bytes(), &doc), json.Unmarshal(b.Material().LogEntries[0], &entry)); err != nil {
		t.Fatal(err)
	}
	annotations := func(promise []byte, at int64) map[string]string {
		text := must(json.Marshal(map[string]any{"SignedEntryTimestamp": promise, "Payload": map[string]any{"body": entry.CanonicalizedBody,
			"integratedTime": at, "logIndex": entry.LogIndex, "logID": hex.EncodeToString(entry.LogID.KeyID)}}))
		return map[string]string{"dev.sigstore.cosign/bundle": string(text),
			"dev.sigstore.cosign/certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b.Material().Certificate}))}
	}
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{i.trustedRoot(t, i.authorities())}}))
	promise := entry.InclusionPromise.SignedEntryTimestamp
	got, err := v.Verify(t.Context(), must(provenance.ParseCosignLayer(doc.DSSEEnvelope, annotations(promise, entry.IntegratedTime))))
	if err != nil || got.Signer != (provenance.Principal{Issuer: testIssuer, Subject: testSubject}) || got.LogEntries != 1 || len(got.Times) != 1 {
		t.Errorf("proved %+v, %v", got, err)
	}
	if got, err := v.Verify(t.Context(), must(provenance.ParseCosignLayer(doc.DSSEEnvelope, annotations(promise, entry.IntegratedTime+1)))); err == nil {
		t.Errorf("a time that the log did not sign: proved %+v", got)
	}
	promise[len(promise)-1] ^= 1
	if got, err := v.Verify(t.Context(), must(provenance.ParseCosignLayer(doc.DSSEEnvelope, annotations(promise, entry.IntegratedTime)))); err == nil {
		t.Errorf("a promise that the log did not sign: proved %+v", got)
	}
	bare := annotations(promise, 0)
	delete(bare, "dev.sigstore.cosign/bundle")
	if got, err := v.Verify(t.Context(), must(provenance.ParseCosignLayer(doc.DSSEEnvelope, bare))); err == nil {
		t.Errorf("without a log: proved %+v", got)
	}
}

func TestSignerLogsWithAKey(t *testing.T) {
	i := newInstance(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	o := i.options(t)
	o.Token, o.Key = nil, key
	b, err := sign(t, o)
	if err != nil {
		t.Fatal(err)
	}
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{i.trustedRoot(t, i.authorities())}, Keys: []crypto.PublicKey{key.Public()}}))
	got, err := v.Verify(t.Context(), b)
	if err != nil || got.Signer.Key == "" || got.LogEntries != 1 || len(got.Times) != 1 {
		t.Errorf("proved %+v, %v", got, err)
	}
	if _, err := provenance.KeyVerifier(key.Public()).Verify(t.Context(), b); err != nil {
		t.Errorf("without Sigstore: %v", err)
	}
}

// TestSignerFindsOutWhatReadersWouldRefuse: services that answer, and not what
// the trusted root vouches for.
func TestSignerFindsOutWhatReadersWouldRefuse(t *testing.T) {
	validity := func(from, to time.Duration) func(*instance) {
		return func(i *instance) {
			i.leaf = func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
		}
	}
	leaf := func(change func(*x509.Certificate)) func(*instance) { return func(i *instance) { i.leaf = change } }
	for what, c := range map[string]struct {
		change func(*instance)
		want   string
	}{
		"a certificate that had expired": {validity(-20*time.Minute, -10*time.Minute), "integrated time outside certificate validity"},
		"a certificate for later":        {validity(10*time.Minute, 20*time.Minute), "integrated time outside certificate validity"},
		"a certificate that outlived its authority": {func(i *instance) {
			validity(-time.Minute, 3*time.Hour)(i)
			i.logged = func() time.Time { return time.Now().Add(150 * time.Minute) }
			i.logLife = 4 * time.Hour
		}, "leaf certificate verification failed"},
		"a time outside of the log's key": {func(i *instance) {
			validity(-3*time.Hour, time.Hour)(i)
			i.logged = func() time.Time { return time.Now().Add(-2 * time.Hour) }
		}, "not enough verified log entries"},
		"a certificate for two":    {leaf(func(c *x509.Certificate) { c.EmailAddresses = []string{"root@example.com"} }), "names 2 subjects"},
		"a certificate by nobody":  {leaf(func(c *x509.Certificate) { c.ExtraExtensions = nil }), "does not say who vouches"},
		"a certificate for nobody": {leaf(func(c *x509.Certificate) { c.URIs = nil }), "no Subject Alternative Name"},
		"a certificate for TLS": {leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
			"leaf certificate verification failed"},
		"a certificate of a stranger": {func(i *instance) {
			other := newInstance(t)
			i.intermediate, i.key = other.intermediate, other.key
		}, "leaf certificate verification failed"},
	} {
		i := newInstance(t)
		trusted := i.authorities()
		c.change(i)
		o := i.options(t)
		o.TrustedRoot = i.trustedRoot(t, trusted)
		b, err := sign(t, o)
		if err == nil {
			t.Errorf("%s: signed %.100s", what, b.Bytes())
		} else if !strings.Contains(err.Error(), i.URL) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), token()) {
			t.Errorf("%s: %v: want the service named, %q, and no token", what, err, c.want)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return copy(p, strings.Repeat("a", len(p))), nil }

func TestSignerSurvivesServices(t *testing.T) {
	i := newInstance(t)
	for what, url := range map[string]string{
		"no JSON":                        broken(t, 200, strings.NewReader("<html>")).URL,
		"no JSON, created":               broken(t, 201, strings.NewReader("<html>")).URL,
		"nothing":                        broken(t, 200, strings.NewReader("{}")).URL,
		"nothing, created":               broken(t, 201, strings.NewReader("{}")).URL,
		"a refusal":                      broken(t, 403, strings.NewReader("no")).URL,
		"an answer without end":          broken(t, 200, endless{}).URL,
		"an answer without end, created": broken(t, 201, endless{}).URL,
	} {
		for _, member := range []string{"caUrls", "rekorTlogUrls"} {
			for _, version := range []int{1, 2} {
				o := i.options(t)
				var config map[string]any
				if err := json.Unmarshal(o.SigningConfig, &config); err != nil {
					t.Fatal(err)
				}
				if member == "caUrls" && version == 2 {
					continue
				}
				config[member] = service(url, version)
				// Logs of version 2 need a timestamp authority; it is not reached.
				config["tsaUrls"], config["tsaConfig"] = service(url, 1), map[string]string{"selector": "ANY"}
				if version == 1 {
					delete(config, "tsaUrls")
				}
				o.SigningConfig = must(json.Marshal(config))
				if b, err := sign(t, o); err == nil {
					t.Errorf("%s, %s: signed %.100s", what, member, b.Bytes())
				}
			}
		}
	}
}

func TestSignerRefusesContradictions(t *testing.T) {
	i := newInstance(t)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*sigstore.SignerOptions){
		"nobody":                    func(o *sigstore.SignerOptions) { o.Token = nil },
		"two":                       func(o *sigstore.SignerOptions) { o.Key = key },
		"a key that signs messages": func(o *sigstore.SignerOptions) { o.Token, o.Key = nil, ed },
		"a hash that the log does not take": func(o *sigstore.SignerOptions) {
			o.Token, o.Key = nil, must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
		},
		"no root":                func(o *sigstore.SignerOptions) { o.TrustedRoot = nil },
		"no configuration":       func(o *sigstore.SignerOptions) { o.SigningConfig = nil },
		"a broken root":          func(o *sigstore.SignerOptions) { o.TrustedRoot = []byte("{") },
		"a large root":           func(o *sigstore.SignerOptions) { o.TrustedRoot = make([]byte, 2<<20) },
		"a broken configuration": func(o *sigstore.SignerOptions) { o.SigningConfig = []byte("{") },
		"no services": func(o *sigstore.SignerOptions) {
			o.SigningConfig = []byte(`{"mediaType":"` + root.SigningConfigMediaType02 + `"}`)
		},
		"a certificate and no time": func(o *sigstore.SignerOptions) {
			o.SigningConfig = must(json.Marshal(map[string]any{"mediaType": root.SigningConfigMediaType02, "caUrls": service(i.URL, 1)}))
		},
		"a log that proves no time": func(o *sigstore.SignerOptions) {
			o.SigningConfig = must(json.Marshal(map[string]any{"mediaType": root.SigningConfigMediaType02, "caUrls": service(i.URL, 1),
				"rekorTlogUrls": service(i.URL, 2), "rekorTlogConfig": map[string]string{"selector": "ALL"}}))
		},
	} {
		o := i.options(t)
		change(&o)
		if _, err := sigstore.NewSigner(o); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestSignerRefusesPayloads(t *testing.T) {
	s := must(sigstore.NewSigner(newInstance(t).options(t)))
	for what, in := range map[string]struct {
		payloadType string
		payload     []byte
	}{"none": {provenance.PayloadType, nil}, "no type": {"", []byte("{}")}, "too large": {provenance.PayloadType, make([]byte, 5<<20)}} {
		if _, err := s.Sign(t.Context(), in.payloadType, in.payload); err == nil {
			t.Errorf("%s: signed", what)
		}
	}
}

func TestSignerHidesTokens(t *testing.T) {
	o := newInstance(t).options(t)
	secret := errors.New("no token today")
	o.Token = func(context.Context, string) (string, error) { return "", secret }
	if _, err := sign(t, o); !errors.Is(err, secret) {
		t.Errorf("got %v, want the error of the token's source", err)
	}
	o.Token = func(context.Context, string) (string, error) { return "hunter2", nil }
	if _, err := sign(t, o); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error without the token", err)
	}
}

// TestSignerTakesTheTokenNowhereElse: another port is another party, to which
// net/http would take the token along.
func TestSignerTakesTheTokenNowhereElse(t *testing.T) {
	i := newInstance(t)
	var asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(other.Close)
	for _, status := range []int{http.StatusFound, http.StatusTemporaryRedirect} {
		authority := httptest.NewServer(http.RedirectHandler(other.URL, status))
		t.Cleanup(authority.Close)
		o := i.options(t)
		var config map[string]any
		if err := json.Unmarshal(o.SigningConfig, &config); err != nil {
			t.Fatal(err)
		}
		config["caUrls"] = service(authority.URL, 1)
		o.SigningConfig = must(json.Marshal(config))
		if b, err := sign(t, o); err == nil || asked.Load() != 0 {
			t.Errorf("redirect by %d: signed %v with error %v, %d requests elsewhere", status, b, err, asked.Load())
		}
	}
}

// TestSignerEndsWithItsContext: also while a service keeps it waiting.
func TestSignerEndsWithItsContext(t *testing.T) {
	i := newInstance(t)
	ctx, cancel := context.WithCancel(t.Context())
	i.leaf = func(*x509.Certificate) { cancel() }
	s := must(sigstore.NewSigner(i.options(t)))
	if _, err := s.Sign(ctx, provenance.PayloadType, []byte(statement)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context was cancelled", err)
	}
}
