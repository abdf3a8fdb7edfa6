// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

const statement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"model","digest":{"sha256":"` +
	`e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`

func (s *stack) signerOptions(token string) sigstore.SignerOptions {
	return sigstore.SignerOptions{TrustedRoot: s.root, SigningConfig: s.config,
		Token: func(_ context.Context, audience string) (string, error) {
			if audience != "sigstore" {
				return "", errors.New("asked for a token for " + audience)
			}
			return token, nil
		}}
}

func (s *stack) verifier(t *testing.T) *sigstore.Verifier {
	t.Helper()
	v, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{s.root}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSignerMayBeCalledConcurrently(t *testing.T) {
	s := sigstoreStack(t)
	signer, err := sigstore.NewSigner(s.signerOptions(s.issuer.person(person)))
	if err != nil {
		t.Fatal(err)
	}
	v := s.verifier(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			b, err := signer.Sign(t.Context(), provenance.PayloadType, []byte(statement))
			if err != nil {
				t.Error(err)
				return
			}
			got, err := v.Verify(t.Context(), b)
			if err != nil {
				t.Error(err)
				return
			}
			if got.Signer.Subject != person || got.Signer.Issuer != s.issuer.people() || got.LogEntries != 1 || got.Timestamps != 1 || len(got.Times) != 1 {
				t.Errorf("proved %+v", got)
			}
		})
	}
	wg.Wait()
}

func TestSignerRefusesTokensThatFulcioRefuses(t *testing.T) {
	s := sigstoreStack(t)
	token := s.issuer.person(person)
	for what, token := range map[string]string{
		"a forged signature": token[:len(token)-8] + "AAAAAAAA", "no token": "", "no JWT": "hunter2",
		"an unknown issuer": s.issuer.token(map[string]any{"iss": s.issuer.server.URL, "sub": person, "email": person, "email_verified": true}),
	} {
		signer, err := sigstore.NewSigner(s.signerOptions(token))
		if err != nil {
			t.Fatal(err)
		}
		b, err := signer.Sign(t.Context(), provenance.PayloadType, []byte(statement))
		if err == nil {
			t.Errorf("%s: signed %s", what, b.Bytes())
		} else if token != "" && strings.Contains(err.Error(), token) {
			t.Errorf("%s: the error shows the token: %v", what, err)
		}
	}
}

// swap replaces a member of the bundle by that of another.
func swap(t *testing.T, b, other *provenance.Bundle, path ...string) *provenance.Bundle {
	t.Helper()
	var docs [2]map[string]any
	for i, bundle := range []*provenance.Bundle{b, other} {
		if err := json.Unmarshal(bundle.Bytes(), &docs[i]); err != nil {
			t.Fatal(err)
		}
	}
	to, from := docs[0], docs[1]
	for _, name := range path[:len(path)-1] {
		to, from = to[name].(map[string]any), from[name].(map[string]any)
	}
	last := path[len(path)-1]
	if to[last] == nil || from[last] == nil {
		t.Fatalf("no member %v", path)
	}
	to[last] = from[last]
	text, err := json.Marshal(docs[0])
	if err != nil {
		t.Fatal(err)
	}
	out, err := provenance.ParseBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestVerifierRefusesPartsOfTwoSignatures: each part is genuine and of the same
// person, and says nothing about the other signature (FAULTS 36).
func TestVerifierRefusesPartsOfTwoSignatures(t *testing.T) {
	s := sigstoreStack(t)
	a, b := s.sign(t, s.issuer.person(person)), s.sign(t, s.issuer.person(person))
	v := s.verifier(t)
	for _, bundle := range []*provenance.Bundle{a, b} {
		if _, err := v.Verify(t.Context(), bundle); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range [][]string{
		{"verificationMaterial", "tlogEntries"}, {"verificationMaterial", "timestampVerificationData"},
		{"verificationMaterial", "certificate"}, {"dsseEnvelope", "signatures"},
	} {
		if _, err := v.Verify(t.Context(), swap(t, a, b, path...)); !errors.Is(err, provenance.ErrSignature) && !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%v of another signature: got %v", path, err)
		}
	}
}

// without is a JSON object without some of its members.
func without(t *testing.T, object []byte, members ...string) []byte {
	t.Helper()
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(object, &doc); err != nil {
		t.Fatal(err)
	}
	for _, m := range members {
		if doc[m] == nil {
			t.Fatalf("no member %s", m)
		}
		delete(doc, m)
	}
	out, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestVerifierRefusesWithoutLogOrTime: what the instance has, every bundle needs.
func TestVerifierRefusesWithoutLogOrTime(t *testing.T) {
	s := sigstoreStack(t)
	b, v := s.sign(t, s.issuer.person(person)), s.verifier(t)
	for _, member := range []string{"tlogEntries", "timestampVerificationData"} {
		if _, err := v.Verify(t.Context(), lacking(t, b, member)); !errors.Is(err, provenance.ErrSignature) {
			t.Errorf("without %s: got %v", member, err)
		}
	}
}

// TestVerifierKeepsInstancesApart: the certificate authority of one root and the
// log and timestamps of another prove nothing together.
func TestVerifierKeepsInstancesApart(t *testing.T) {
	s := sigstoreStack(t)
	b := s.sign(t, s.issuer.person(person))
	root := func(lacking ...string) []byte { return without(t, s.root, lacking...) }
	for what, c := range map[string]struct {
		roots [][]byte
		held  bool
	}{
		"whole":                    {[][]byte{s.root}, true},
		"whole, after another":     {[][]byte{root("timestampAuthorities"), s.root}, true},
		"authority and log":        {[][]byte{root("timestampAuthorities")}, false}, // no time
		"an instance without logs": {[][]byte{root("tlogs")}, true},
	} {
		v, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: c.roots})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if _, err := v.Verify(t.Context(), b); (err == nil) != c.held {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for what, root := range map[string][]byte{
		"no authority": root("certificateAuthorities"), "no time": root("tlogs", "timestampAuthorities"), "nothing": root("certificateAuthorities", "tlogs", "timestampAuthorities"),
	} {
		if _, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{root}}); err == nil {
			t.Errorf("%s: a trusted root that proves nothing is taken", what)
		}
	}
}

func TestSignerEndsWithItsContext(t *testing.T) {
	s := sigstoreStack(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := s.signerOptions("")
	token := s.issuer.person(person)
	o.Token = func(context.Context, string) (string, error) {
		cancel()
		return token, nil
	}
	signer, err := sigstore.NewSigner(o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Sign(ctx, provenance.PayloadType, []byte(statement)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context was cancelled", err)
	}
}
