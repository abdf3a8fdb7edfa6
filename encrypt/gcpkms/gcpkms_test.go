// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gcpkms_test

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/gcpkms"
	"github.com/modelsec/modelsec-go/encrypt/gcpkms/gcpkmstest"
)

const (
	ring      = "projects/models-prod/locations/europe-west3/keyRings/weights/cryptoKeys/"
	keyName   = ring + "release"
	otherName = ring + "another"
)

// service is KMS with two keys, at an address without TLS.
func service(t *testing.T) (*gcpkmstest.Server, string) {
	t.Helper()
	s := gcpkmstest.New()
	s.Token = rand.Text()
	s.Rotate(keyName)
	s.Rotate(otherName)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	s.Register(g)
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

func open(t *testing.T, s *gcpkmstest.Server, address, name string) *gcpkms.Key {
	t.Helper()
	k, err := gcpkms.New(t.Context(), "gcpkms://"+name+"?endpoint="+address, &gcpkms.Options{Client: []option.ClientOption{
		option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
		option.WithGRPCDialOption(grpc.WithPerRPCCredentials(token(s.Token))),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { k.Close() })
	return k
}

// token is a bearer token for a loopback address.
type token string

func (c token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(c)}, nil
}

func (token) RequireTransportSecurity() bool { return false }

// TestSuite runs the real SDK client against a server of ours.
func TestSuite(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		s, address := service(t)
		k := open(t, s, address, keyName)
		return encrypttest.Pair{
			Recipient: k, Identity: k, Stranger: open(t, s, address, otherName),
			Binds:    true,
			Secrets:  [][]byte{[]byte(s.Token)},
			Requests: s.Requests,
			Service:  s.Service(keyName),
		}
	})
}

// TestTokenThatCannotBeHad: where nobody answers about credentials, the same
// call may succeed later. Where they are refused, it will not.
func TestTokenThatCannotBeHad(t *testing.T) {
	for text, want := range map[string]error{
		"dial tcp 169.254.169.254:80: connect: connection refused":                   encrypt.ErrUnavailable,
		"auth: cannot fetch token: 503\nResponse: try again":                         encrypt.ErrUnavailable,
		"auth: cannot fetch token: 429\nResponse: too many":                          encrypt.ErrUnavailable,
		"auth: cannot fetch token: 400\nResponse: {\"error\":\"invalid_grant\"}":     encrypt.ErrDenied,
		"oauth2: cannot fetch token: 401 Unauthorized\nResponse: {\"error\":\"no\"}": encrypt.ErrDenied,
	} {
		s, address := service(t)
		k, err := gcpkms.New(t.Context(), "gcpkms://"+keyName+"?endpoint="+address, &gcpkms.Options{Client: []option.ClientOption{
			option.WithoutAuthentication(),
			option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())),
			option.WithGRPCDialOption(grpc.WithPerRPCCredentials(noToken{errors.New(text)})),
		}})
		if err != nil {
			t.Fatal(err)
		}
		_, b := encrypttest.NewBinding(t)
		if _, err := k.Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, want) || s.Requests() != 0 {
			t.Errorf("%s: error %v, want %v", text, err, want)
		}
		k.Close()
	}
}

type noToken struct{ err error }

func (n noToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return nil, n.err
}

func (noToken) RequireTransportSecurity() bool { return false }

func TestOldVersionsStillOpen(t *testing.T) {
	s, address := service(t)
	k := open(t, s, address, keyName)
	key, b := encrypttest.NewBinding(t)
	for range 2 {
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, k)
		if err != nil {
			t.Fatal(err)
		}
		s.Rotate(keyName)
		got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, k)
		if err != nil {
			t.Fatal(err)
		}
		got.Close()
	}
}

// TestDamageIsNotBelieved: every checksum of both answers is looked at.
func TestDamageIsNotBelieved(t *testing.T) {
	for name, damage := range map[string]func(*kmspb.EncryptResponse){
		"ciphertext":             func(r *kmspb.EncryptResponse) { r.Ciphertext[5] ^= 1 },
		"no checksum":            func(r *kmspb.EncryptResponse) { r.CiphertextCrc32C = nil },
		"plaintext unverified":   func(r *kmspb.EncryptResponse) { r.VerifiedPlaintextCrc32C = false },
		"other data unverified":  func(r *kmspb.EncryptResponse) { r.VerifiedAdditionalAuthenticatedDataCrc32C = false },
		"checksum of other data": func(r *kmspb.EncryptResponse) { r.CiphertextCrc32C.Value ^= 1 << 20 },
	} {
		s, address := service(t)
		s.Damage = func(answer any) { damage(answer.(*kmspb.EncryptResponse)) }
		_, b := encrypttest.NewBinding(t)
		if _, err := open(t, s, address, keyName).Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
			t.Errorf("%s: error %v, want ErrUnavailable", name, err)
		}
	}
	for name, damage := range map[string]func(*kmspb.DecryptResponse){
		"plaintext":   func(r *kmspb.DecryptResponse) { r.Plaintext[5] ^= 1 },
		"no checksum": func(r *kmspb.DecryptResponse) { r.PlaintextCrc32C = nil },
	} {
		s, address := service(t)
		k := open(t, s, address, keyName)
		s.Damage = func(answer any) {
			if r, ok := answer.(*kmspb.DecryptResponse); ok {
				damage(r)
			}
		}
		_, b := encrypttest.NewBinding(t)
		stanza, err := k.Wrap(t.Context(), make([]byte, 128), b)
		if err != nil {
			t.Fatal(err)
		}
		if out, err := k.Unwrap(t.Context(), stanza, b); !errors.Is(err, encrypt.ErrUnavailable) || out != nil {
			t.Errorf("%s: %d bytes, error %v, want ErrUnavailable", name, len(out), err)
		}
	}
}

// TestWrapRefusesWhatNoReaderTakes: the answer of a broken service does not
// become a grant.
func TestWrapRefusesWhatNoReaderTakes(t *testing.T) {
	for _, size := range []int{0, 4<<10 + 1} {
		s, address := service(t)
		s.Damage = func(answer any) {
			r := answer.(*kmspb.EncryptResponse)
			r.Ciphertext = make([]byte, size)
			r.CiphertextCrc32C.Value = int64(crc(r.Ciphertext))
		}
		_, b := encrypttest.NewBinding(t)
		if _, err := open(t, s, address, keyName).Wrap(t.Context(), make([]byte, 128), b); err == nil || errors.Is(err, encrypt.ErrUnavailable) {
			t.Errorf("%d bytes: error %v", size, err)
		}
	}
}

func TestServiceOutOfReachIsUnavailable(t *testing.T) {
	s, _ := service(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, b := encrypttest.NewBinding(t)
	if _, err := open(t, s, address, keyName).Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
}

func TestCredentialsMustBeRight(t *testing.T) {
	s, address := service(t)
	wrong := &gcpkmstest.Server{Token: "another"}
	_, b := encrypttest.NewBinding(t)
	if _, err := open(t, wrong, address, keyName).Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrDenied) {
		t.Errorf("error %v, want ErrDenied", err)
	}
	if s.Requests() != 1 {
		t.Errorf("%d requests, want 1", s.Requests())
	}
}
