// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package gcpkms wraps the keys of models with Google Cloud KMS.
//
// A [Key] names one symmetric key of the service and is both an
// encrypt.Recipient (cloudkms.cryptoKeyVersions.useToEncrypt) and an
// encrypt.Identity (useToDecrypt). What is sent are the 128 bytes of a grant and
// the context that names the artifact as associated data (FORMAT.md §8.2), with
// CRC32C checksums in both directions. No model and no file name is sent.
//
// Credentials are Application Default Credentials, workload identity included.
// Every call is one request; package encrypt decides whether another follows.
package gcpkms

import (
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"

	kms "cloud.google.com/go/kms/apiv1"
	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/modelsec/modelsec-go/encrypt"
)

// Type is the type of the stanzas of this package (FORMAT.md §8.4).
const Type = "gcp-kms"

const (
	// maxBody is far above what the service returns for 128 bytes.
	maxBody = 4 << 10
	// maxAnswer is far above any message of these two calls.
	maxAnswer = 64 << 10
)

// A Key is a symmetric key in Cloud KMS, of any protection level. It implements
// encrypt.Recipient, Identity, Keyed, Caller and Classed, is safe for concurrent
// use, and holds no key material; formatting a Key shows its URI alone.
type Key struct {
	uri, name string
	client    *kms.KeyManagementClient
}

// Options are the optional settings of [New].
type Options struct {
	// Client is added to the options of the SDK's client: other credentials,
	// another transport.
	Client []option.ClientOption
}

// New returns the key that a URI names:
//
//	gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY[?endpoint=HOST:PORT]
//
// The key is named without a version: the service encrypts with the primary one
// and knows which decrypts. The endpoint, always with TLS, is for regional and
// private endpoints. New looks for credentials, which on a machine without any
// asks the metadata server; it makes no request to the service. The caller
// closes the Key.
func New(ctx context.Context, uri string, o *Options) (*Key, error) {
	name, endpoint, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	options := []option.ClientOption{
		// The SDK's own log, by environment, would show what is wrapped.
		option.WithLogger(slog.New(slog.DiscardHandler)),
		option.WithTelemetryDisabled(),
		option.WithGRPCDialOption(grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer))),
	}
	if endpoint != "" {
		options = append(options, option.WithEndpoint(endpoint))
	}
	if o != nil {
		options = append(options, o.Client...)
	}
	client, err := kms.NewKeyManagementClient(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("gcpkms: %s: %w", name, err)
	}
	client.CallOptions = &kms.KeyManagementCallOptions{} // package encrypt repeats
	return &Key{uri, name, client}, nil
}

// Close closes connections. Calls that are under way fail.
func (k *Key) Close() error { return k.client.Close() }

// Resource returns what key ids are made from (FORMAT.md §8.3): the resource name
// of the key, without a version.
func (k *Key) Resource() []byte { return []byte(k.name) }

// KeyID returns the id of the key in the artifact of b.
func (k *Key) KeyID(b encrypt.Binding) string { return b.KeyID(Type, k.Resource()) }

// CallsOut returns true.
func (k *Key) CallsOut() bool { return true }

// Class returns encrypt.PostQuantum: the service wraps with AES-256-GCM, so what
// lies at the registry does not fall to a quantum computer.
func (k *Key) Class() encrypt.WrapClass { return encrypt.PostQuantum }

// Wrap implements encrypt.Recipient. An answer that was damaged on the way is
// encrypt.ErrUnavailable.
func (k *Key) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := ctx.Err(); err != nil {
		return encrypt.Stanza{}, err
	}
	aad := b.Context()
	out, err := k.client.Encrypt(ctx, &kmspb.EncryptRequest{
		Name: k.name, Plaintext: key, PlaintextCrc32C: checksum(key),
		AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: checksum(aad),
	})
	if err != nil {
		return encrypt.Stanza{}, k.failure("useToEncrypt", err, nil)
	}
	if !out.GetVerifiedPlaintextCrc32C() || !out.GetVerifiedAdditionalAuthenticatedDataCrc32C() || !same(out.GetCiphertextCrc32C(), out.GetCiphertext()) {
		return encrypt.Stanza{}, k.damaged("useToEncrypt")
	}
	if n := len(out.GetCiphertext()); n == 0 || n > maxBody {
		return encrypt.Stanza{}, fmt.Errorf("gcpkms: useToEncrypt of %s: the service returned %d bytes, want 1 to %d", k.name, n, maxBody)
	}
	return encrypt.Stanza{Type: Type, KeyID: k.KeyID(b), Body: out.GetCiphertext()}, nil
}

// Unwrap implements encrypt.Identity. What the service does not decrypt under
// this key and context is encrypt.ErrDecrypt.
func (k *Key) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != Type || s.KeyID != k.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	invalid := fmt.Errorf("%s stanza: %w", Type, encrypt.ErrDecrypt)
	if len(s.Params) != 0 || len(s.Body) == 0 || len(s.Body) > maxBody {
		return nil, invalid
	}
	aad := b.Context()
	out, err := k.client.Decrypt(ctx, &kmspb.DecryptRequest{
		Name: k.name, Ciphertext: s.Body, CiphertextCrc32C: checksum(s.Body),
		AdditionalAuthenticatedData: aad, AdditionalAuthenticatedDataCrc32C: checksum(aad),
	})
	if err != nil {
		return nil, k.failure("useToDecrypt", err, invalid)
	}
	if !same(out.GetPlaintextCrc32C(), out.GetPlaintext()) {
		clear(out.GetPlaintext())
		return nil, k.damaged("useToDecrypt")
	}
	return out.GetPlaintext(), nil
}

func (k *Key) damaged(permission string) error {
	return fmt.Errorf("gcpkms: %s of %s: %w: a CRC32C checksum does not match", permission, k.name, encrypt.ErrUnavailable)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(b, castagnoli)))
}

// same reports whether sum is there and is the checksum of b.
func same(sum *wrapperspb.Int64Value, b []byte) bool {
	return sum != nil && sum.GetValue() == checksum(b).GetValue()
}

// String returns the URI of the key.
func (k *Key) String() string { return k.uri }

// Format writes the URI for every verb: the SDK's client, which knows
// credentials, is never formatted.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.uri) }

// MarshalText returns the URI.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.uri), nil }
