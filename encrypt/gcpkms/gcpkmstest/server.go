// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package gcpkmstest is a small Cloud KMS for tests: Encrypt and Decrypt over
// gRPC, with AES-256-GCM under keys in memory, the associated data
// authenticated, and CRC32C checksums in both directions. It keeps the limits
// and codes of the service as far as package gcpkms meets them.
package gcpkmstest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"sync"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxPlaintext bounds plaintext and associated data together, as for keys in
// hardware.
const maxPlaintext = 8 << 10

// Server is the service. Its fields are set before it serves; its methods are
// safe for concurrent use.
type Server struct {
	// Token, where it is set, is the bearer token that is accepted. Where it is
	// empty nobody is asked for one.
	Token string
	// Intercept, where it is set, is asked about every request, concurrently. If
	// it returns nil the request is served.
	Intercept func(ctx context.Context, request any) error
	// Damage, where it is set, may change an answer, concurrently.
	Damage func(answer any)

	kmspb.UnimplementedKeyManagementServiceServer
	mu       sync.Mutex
	keys     map[string]*key
	requests int
}

type key struct {
	versions []cipher.AEAD
	disabled bool
}

// New returns a service without keys.
func New() *Server { return &Server{keys: make(map[string]*key)} }

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) { kmspb.RegisterKeyManagementServiceServer(g, s) }

// Rotate gives a key a new primary version, and makes the key where it is not
// there.
func (s *Server) Rotate(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keys[name]
	if k == nil {
		k = new(key)
		s.keys[name] = k
	}
	k.versions = append(k.versions, newAEAD())
}

// SetEnabled disables all versions of a key or enables them again.
func (s *Server) SetEnabled(name string, enabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[name].disabled = !enabled
}

// Requests returns how many requests came in.
func (s *Server) Requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func newAEAD() cipher.AEAD {
	var k [32]byte
	rand.Read(k[:])
	block, err := aes.NewCipher(k[:])
	if err != nil {
		panic(err) // the key has 32 bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // the block is crypto/aes's own
	}
	return aead
}

// enter counts a request and returns the versions of its key.
func (s *Server) enter(ctx context.Context, request interface{ GetName() string }) ([]cipher.AEAD, error) {
	s.mu.Lock()
	s.requests++
	k, found := s.keys[request.GetName()]
	var versions []cipher.AEAD
	disabled := false
	if found {
		versions, disabled = k.versions, k.disabled
	}
	s.mu.Unlock()
	if md, _ := metadata.FromIncomingContext(ctx); s.Token != "" && fmt.Sprint(md["authorization"]) != "[Bearer "+s.Token+"]" {
		return nil, status.Error(codes.Unauthenticated, "Request had invalid authentication credentials.")
	}
	if s.Intercept != nil {
		if err := s.Intercept(ctx, request); err != nil {
			return nil, err
		}
	}
	switch {
	case !found:
		return nil, status.Errorf(codes.NotFound, "CryptoKey %s not found.", request.GetName())
	case disabled:
		return nil, status.Errorf(codes.FailedPrecondition, "%s is not enabled, current state is: DISABLED.", request.GetName())
	}
	return versions, nil
}

// Encrypt implements the call.
func (s *Server) Encrypt(ctx context.Context, q *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	versions, err := s.enter(ctx, q)
	if err != nil {
		return nil, err
	}
	if len(q.Plaintext)+len(q.AdditionalAuthenticatedData) > maxPlaintext {
		return nil, status.Error(codes.InvalidArgument, "plaintext and additional authenticated data are too long")
	}
	if !matches(q.PlaintextCrc32C, q.Plaintext) || !matches(q.AdditionalAuthenticatedDataCrc32C, q.AdditionalAuthenticatedData) {
		return nil, status.Error(codes.InvalidArgument, "The checksum in the request does not match")
	}
	last := len(versions) - 1
	body := versions[last].Seal([]byte{byte(last)}, nil, q.Plaintext, q.AdditionalAuthenticatedData)
	out := &kmspb.EncryptResponse{
		Name: fmt.Sprintf("%s/cryptoKeyVersions/%d", q.Name, last+1), Ciphertext: body, CiphertextCrc32C: checksum(body),
		VerifiedPlaintextCrc32C: q.PlaintextCrc32C != nil, VerifiedAdditionalAuthenticatedDataCrc32C: q.AdditionalAuthenticatedDataCrc32C != nil,
		ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
	}
	if s.Damage != nil {
		s.Damage(out)
	}
	return out, nil
}

// Decrypt implements the call.
func (s *Server) Decrypt(ctx context.Context, q *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	versions, err := s.enter(ctx, q)
	if err != nil {
		return nil, err
	}
	if !matches(q.CiphertextCrc32C, q.Ciphertext) || !matches(q.AdditionalAuthenticatedDataCrc32C, q.AdditionalAuthenticatedData) {
		return nil, status.Error(codes.InvalidArgument, "The checksum in the request does not match")
	}
	invalid := status.Error(codes.InvalidArgument, "Decryption failed: the ciphertext is invalid.")
	if len(q.Ciphertext) == 0 || int(q.Ciphertext[0]) >= len(versions) {
		return nil, invalid
	}
	plaintext, err := versions[q.Ciphertext[0]].Open(nil, nil, q.Ciphertext[1:], q.AdditionalAuthenticatedData)
	if err != nil {
		return nil, invalid
	}
	out := &kmspb.DecryptResponse{
		Plaintext: plaintext, PlaintextCrc32C: checksum(plaintext),
		UsedPrimary: int(q.Ciphertext[0]) == len(versions)-1, ProtectionLevel: kmspb.ProtectionLevel_SOFTWARE,
	}
	if s.Damage != nil {
		s.Damage(out)
	}
	return out, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, castagnoli)))
}

// matches is true where there is no checksum to compare with, as at the service.
func matches(sum *wrapperspb.Int64Value, b []byte) bool {
	return sum == nil || sum.GetValue() == checksum(b).GetValue()
}
