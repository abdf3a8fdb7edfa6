// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms_test

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"context"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/azurekms"
	"github.com/modelsec/modelsec-go/encrypt/azurekms/azurekmstest"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

const vault = "models.vault.azure.net"

// newVault has two keys of each kind, in one vault for simplicity.
func newVault(*testing.T) *azurekmstest.Server {
	s := azurekmstest.New(vault, rand.Text())
	s.RotateRSA("release")
	s.RotateRSA("another")
	s.RotateAES("release-hsm")
	s.RotateAES("another-hsm")
	return s
}

// token is a credential that needs nobody.
type token string

func (c token) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(c), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func open(t *testing.T, s *azurekmstest.Server, path string) *azurekms.Key {
	t.Helper()
	k, err := azurekms.New("azurekms://"+vault+"/"+path, &azurekms.Options{Credential: token(s.Token), Transport: s})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSuite runs the real SDK client on the SDK's own fake transport.
func TestSuite(t *testing.T) {
	s := newVault(t)
	for name, paths := range map[string][2]string{
		"RSA":              {"release", "another"},
		"AES":              {"release-hsm?algorithm=A256KW", "another-hsm?algorithm=A256KW"},
		"RSA, one version": {"release/" + s.Version("release"), "another"},
		"AES, one version": {"release-hsm/" + s.Version("release-hsm") + "?algorithm=A256KW", "another-hsm?algorithm=A256KW"},
	} {
		t.Run(name, func(t *testing.T) {
			encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
				k := open(t, s, paths[0])
				return encrypttest.Pair{
					Recipient: k, Identity: k, Stranger: open(t, s, paths[1]),
					Secrets:  [][]byte{[]byte(s.Token)},
					Requests: s.Requests,
					Service:  s.Service("release", "release-hsm"),
				}
			})
		})
	}
}

// TestRotation: a key without version opens what its old versions wrapped; a key
// with one never leaves it.
func TestRotation(t *testing.T) {
	s := newVault(t)
	for _, kind := range []struct {
		name, query string
		rotate      func(string)
	}{{"release", "", s.RotateRSA}, {"release-hsm", "?algorithm=A256KW", s.RotateAES}} {
		first := s.Version(kind.name)
		whole, pinned := open(t, s, kind.name+kind.query), open(t, s, kind.name+"/"+first+kind.query)
		key, b := encrypttest.NewBinding(t)
		old, err := encrypt.WrapKey(t.Context(), key, b, whole)
		if err != nil {
			t.Fatal(err)
		}
		kind.rotate(kind.name)
		current, err := encrypt.WrapKey(t.Context(), key, b, whole)
		if err != nil {
			t.Fatal(err)
		}
		if got := old[0].Params["version"]; got != first {
			t.Errorf("%s: wrapped with version %s, want %s", kind.name, got, first)
		}
		if got := current[0].Params["version"]; got != s.Version(kind.name) {
			t.Errorf("%s: wrapped with version %s after a rotation, want %s", kind.name, got, s.Version(kind.name))
		}
		if old[0].KeyID != current[0].KeyID {
			t.Errorf("%s: the key id changed with the version", kind.name)
		}
		for what, try := range map[string]struct {
			identity encrypt.Identity
			stanzas  []encrypt.Stanza
			want     error
		}{
			"old, any version":       {whole, old, nil},
			"current, any version":   {whole, current, nil},
			"old, pinned":            {pinned, old, nil},
			"current, pinned to old": {pinned, current, encrypt.ErrNoKey},
		} {
			before := s.Requests()
			got, err := encrypt.UnwrapKey(t.Context(), try.stanzas, b, encrypttest.Now, try.identity)
			if !errors.Is(err, try.want) {
				t.Errorf("%s: %s: error %v, want %v", kind.name, what, err, try.want)
			}
			if err == nil {
				got.Close()
			} else if s.Requests() != before {
				t.Errorf("%s: %s: the vault was asked", kind.name, what)
			}
		}
	}
}

// TestVersionOfAStanzaReachesNothingElse: it is part of a path at the vault, and
// anybody's word.
func TestVersionOfAStanzaReachesNothingElse(t *testing.T) {
	s := newVault(t)
	k := open(t, s, "release")
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, k)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Requests()
	for _, params := range []map[string]string{
		nil, {}, {"version": ""}, {"version": "../../keys/another/" + s.Version("another")}, {"version": "."},
		{"version": "0123456789ABCDEF0123456789ABCDEF"}, {"version": s.Version("release") + "?x"},
		{"version": s.Version("release"), "vault": "evil.example.com"}, {"algorithm": "RSA1_5"},
	} {
		bad := stanzas[0]
		bad.Params = params
		if _, err := k.Unwrap(t.Context(), bad, b.For(bad)); !errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("%v: error %v, want ErrDecrypt", params, err)
		}
	}
	if s.Requests() != before {
		t.Error("the vault was asked")
	}
	unknown := stanzas[0]
	unknown.Params = map[string]string{"version": "00000000000000000000000000000000"}
	if _, err := k.Unwrap(t.Context(), unknown, b.For(unknown)); !errors.Is(err, encrypt.ErrDisabled) {
		t.Errorf("unknown version: error %v, want ErrDisabled", err)
	}
}

// TestWrapBelievesNoOtherKey: what the service says it used must be our key.
func TestWrapBelievesNoOtherKey(t *testing.T) {
	s := newVault(t)
	_, b := encrypttest.NewBinding(t)
	for _, answer := range []string{
		`{"value":"AAAA"}`,
		`{"kid":"https://` + vault + `/keys/another/00000000000000000000000000000000","value":"AAAA"}`,
		`{"kid":"https://evil.vault.azure.net/keys/release/00000000000000000000000000000000","value":"AAAA"}`,
		`{"kid":"https://` + vault + `/keys/release/..","value":"AAAA"}`,
		`{"kid":"https://` + vault + `/keys/release/00000000000000000000000000000000","value":""}`,
	} {
		s.Intercept = func(r *http.Request, _ []byte) *http.Response {
			out := azurekmstest.Answer(r, http.StatusOK, "", "", "")
			out.Body = http.NoBody
			return body(out, answer)
		}
		if _, err := open(t, s, "release").Wrap(t.Context(), make([]byte, 128), b); err == nil {
			t.Errorf("%s: no error", answer)
		}
	}
}

// TestAnswersAreBounded: the SDK reads an answer into memory whole.
func TestAnswersAreBounded(t *testing.T) {
	s := newVault(t)
	_, b := encrypttest.NewBinding(t)
	read := new(endless)
	s.Intercept = func(r *http.Request, _ []byte) *http.Response {
		out := azurekmstest.Answer(r, http.StatusOK, "", "", "")
		out.Body = read
		return out
	}
	if _, err := open(t, s, "release").Wrap(t.Context(), make([]byte, 128), b); err == nil {
		t.Error("an endless answer is no error")
	}
	if read.n > 1<<20 {
		t.Errorf("%d bytes of an endless answer were read", read.n)
	}
}

// TestChallengesThatNameNoTenantAreErrors: the SDK relies on the address of an
// authority being one.
func TestChallengesThatNameNoTenantAreErrors(t *testing.T) {
	_, b := encrypttest.NewBinding(t)
	for _, authority := range []string{"x", "https://login.example.com", "/", "\"\""} {
		for _, challenge := range []string{"Bearer authorization=%s, resource=\"https://vault.azure.net\"", "authoriBearer zation=%s resource=https://vault.azure.net"} {
			k, err := azurekms.New("azurekms://"+vault+"/release", &azurekms.Options{Credential: token("t"), Transport: challenger(fmt.Sprintf(challenge, authority))})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Wrap(t.Context(), make([]byte, 128), b); err == nil {
				t.Errorf("%q was taken for an authority", authority)
			}
		}
	}
}

// challenger is a vault that demands a token, and nothing else.
type challenger string

func (c challenger) Do(r *http.Request) (*http.Response, error) {
	out := azurekmstest.Answer(r, http.StatusUnauthorized, "", "", "")
	out.Header.Set("WWW-Authenticate", string(c))
	return out, nil
}

// TestEndpointNeedsTheCertificateOfTheVault: a private endpoint is an address,
// and no other party, also in a program that has turned verification off.
func TestEndpointNeedsTheCertificateOfTheVault(t *testing.T) {
	lax := http.DefaultTransport.(*http.Transport).Clone()
	lax.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	defer func(old http.RoundTripper) { http.DefaultTransport = old }(http.DefaultTransport)
	http.DefaultTransport = lax
	s := newVault(t)
	address := listenTLS(t, s)
	k, err := azurekms.New("azurekms://"+vault+"/release?endpoint="+address, &azurekms.Options{Credential: token(s.Token)})
	if err != nil {
		t.Fatal(err)
	}
	_, b := encrypttest.NewBinding(t)
	_, err = k.Wrap(t.Context(), make([]byte, 128), b)
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("error %v, want one about the certificate", err)
	}
	if s.Requests() != 0 {
		t.Error("the vault was asked")
	}
}
