// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package awskmstest is a small AWS KMS for tests: Encrypt and Decrypt of its
// JSON 1.1 protocol, with AES-256-GCM under keys in memory, the encryption
// context as associated data, and Signature Version 4 checked. It keeps the
// limits and error codes of the service as far as package awskms meets them.
package awskmstest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

const (
	maxRequest    = 64 << 10
	maxPlaintext  = 4096
	maxCiphertext = 6144
)

// Server is the service, for one account. Its fields are set before it serves;
// its methods are safe for concurrent use.
type Server struct {
	// AccessKeyID and SecretAccessKey are the one pair of credentials that is
	// accepted.
	AccessKeyID, SecretAccessKey string
	// Intercept, where it is set, is asked about every request that was
	// understood, concurrently, and reports whether it answered.
	Intercept func(w http.ResponseWriter, r *http.Request, body []byte) bool

	mu       sync.Mutex
	keys     map[string]*key // by ARN
	requests int
}

type key struct {
	id       [keyIDSize]byte // what a ciphertext says of its key
	aead     cipher.AEAD
	disabled bool
}

const keyIDSize = 36

// New returns a service without keys, with random credentials.
func New() *Server {
	return &Server{AccessKeyID: "AKIA" + rand.Text()[:16], SecretAccessKey: rand.Text(), keys: make(map[string]*key)}
}

// CreateKey makes a symmetric key with the given ARN.
func (s *Server) CreateKey(arn string) {
	k := &key{aead: newAEAD()}
	copy(k.id[:], arn[strings.LastIndexByte(arn, '/')+1:])
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[arn] = k
}

// Replicate makes replica, an ARN in another Region, the same multi-Region key
// as primary.
func (s *Server) Replicate(primary, replica string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := *s.keys[primary]
	s.keys[replica] = &k
}

// SetEnabled disables a key or enables it again.
func (s *Server) SetEnabled(arn string, enabled bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keys[arn].disabled = !enabled
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

// request has the members of Encrypt and Decrypt that are understood.
type request struct {
	KeyId               string
	Plaintext           []byte
	CiphertextBlob      []byte
	EncryptionContext   map[string]string
	EncryptionAlgorithm string
}

// ServeHTTP implements the two actions.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	s.mu.Unlock()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		return
	}
	if err := s.authenticate(r, body); err != nil {
		WriteError(w, http.StatusBadRequest, "InvalidSignatureException", err.Error())
		return
	}
	if s.Intercept != nil && s.Intercept(w, r, body) {
		return
	}
	var q request
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		WriteError(w, http.StatusBadRequest, "SerializationException", err.Error())
		return
	}
	if q.EncryptionAlgorithm != "" && q.EncryptionAlgorithm != "SYMMETRIC_DEFAULT" {
		WriteError(w, http.StatusBadRequest, "InvalidKeyUsageException", "the key is symmetric")
		return
	}
	s.mu.Lock()
	k, found := s.keys[q.KeyId]
	disabled := found && k.disabled
	s.mu.Unlock()
	switch {
	case !found:
		WriteError(w, http.StatusBadRequest, "NotFoundException", fmt.Sprintf("Key %q does not exist", q.KeyId))
		return
	case disabled:
		WriteError(w, http.StatusBadRequest, "DisabledException", q.KeyId+" is disabled.")
		return
	}
	switch r.Header.Get("X-Amz-Target") {
	case "TrentService.Encrypt":
		k.encrypt(w, q)
	case "TrentService.Decrypt":
		k.decrypt(w, q)
	default:
		WriteError(w, http.StatusBadRequest, "UnknownOperationException", "")
	}
}

func (k *key) encrypt(w http.ResponseWriter, q request) {
	if len(q.Plaintext) == 0 || len(q.Plaintext) > maxPlaintext {
		WriteError(w, http.StatusBadRequest, "ValidationException", "plaintext has 1 to 4096 bytes")
		return
	}
	blob := k.aead.Seal(k.id[:], nil, q.Plaintext, canonical(q.EncryptionContext))
	write(w, map[string]any{"KeyId": q.KeyId, "CiphertextBlob": blob, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
}

func (k *key) decrypt(w http.ResponseWriter, q request) {
	switch {
	case len(q.CiphertextBlob) == 0 || len(q.CiphertextBlob) > maxCiphertext:
		WriteError(w, http.StatusBadRequest, "ValidationException", "ciphertextBlob has 1 to 6144 bytes")
		return
	case len(q.CiphertextBlob) < keyIDSize:
		WriteError(w, http.StatusBadRequest, "InvalidCiphertextException", "")
		return
	case !bytes.Equal(q.CiphertextBlob[:keyIDSize], k.id[:]):
		WriteError(w, http.StatusBadRequest, "IncorrectKeyException", "The key ID in the request does not identify a CMK that can perform this operation.")
		return
	}
	plaintext, err := k.aead.Open(nil, nil, q.CiphertextBlob[keyIDSize:], canonical(q.EncryptionContext))
	if err != nil {
		WriteError(w, http.StatusBadRequest, "InvalidCiphertextException", "")
		return
	}
	write(w, map[string]any{"KeyId": q.KeyId, "Plaintext": plaintext, "EncryptionAlgorithm": "SYMMETRIC_DEFAULT"})
}

// canonical is one string for one encryption context.
func canonical(context map[string]string) []byte {
	var b bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(context)) {
		fmt.Fprintf(&b, "%d:%s%d:%s", len(name), name, len(context[name]), context[name])
	}
	return b.Bytes()
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", rand.Text())
	json.NewEncoder(w).Encode(v)
}

// WriteError answers with an error of the service.
func WriteError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-RequestId", rand.Text())
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}
