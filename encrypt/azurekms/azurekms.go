// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package azurekms wraps the keys of models with Azure Key Vault and Managed
// HSM.
//
// A [Key] names one key and is both an encrypt.Recipient (wrapKey) and an
// encrypt.Identity (unwrapKey). What is sent are the 128 bytes of a grant
// (FORMAT.md §8.2), which name the artifact: the service takes no associated
// data with these two operations. No model and no file name is sent.
//
// Credentials are those of the SDK's default chain: environment, workload
// identity, managed identity, Azure CLI. Every call is one request, or two where
// the service asks who is there; package encrypt decides whether another follows.
package azurekms

import (
	"context"
	"fmt"
	"io"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"

	"github.com/modelsec/modelsec-go/encrypt"
)

// The types of the stanzas of this package (FORMAT.md §8.4).
const (
	// TypeRSA wraps with RSA-OAEP-256, under a key of 2,048 bits or more.
	TypeRSA = "azure-rsa-oaep-256"
	// TypeAES wraps with A256KW, under an AES key of a Managed HSM.
	TypeAES = "azure-a256kw"
)

// versionParam is the one parameter of a stanza.
const versionParam = "version"

// maxBody is far above what the service returns for 128 bytes.
const maxBody = 2 << 10

// A Key is a key in a vault or a Managed HSM. It implements encrypt.Recipient,
// Identity, Keyed, Caller and Classed, is safe for concurrent use, and holds no
// key material; formatting a Key shows its URI alone.
type Key struct {
	uri    string
	name   keyName
	client *azkeys.Client
}

// Options are the optional settings of [New].
type Options struct {
	// Credential is used in place of the SDK's default chain.
	Credential azcore.TokenCredential
	// Transport is used in place of one that connects to the vault.
	Transport policy.Transporter
}

// New returns the key that a URI names:
//
//	azurekms://HOST/KEY[/VERSION][?algorithm=RSA-OAEP-256|A256KW][&endpoint=HOST:PORT]
//
// HOST is that of the vault in full, as in models.vault.azure.net. Without a
// version, Wrap uses the current one and Unwrap whichever wrapped, so a key may
// be rotated; with one, both use no other. The algorithm is RSA-OAEP-256 unless
// said. The endpoint is connected to in place of HOST, say a private endpoint
// without DNS, and must have a certificate for HOST. New makes no request.
func New(uri string, o *Options) (*Key, error) {
	if o == nil {
		o = &Options{}
	}
	name, endpoint, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	credential := o.Credential
	if credential == nil {
		if credential, err = defaultCredential(); err != nil {
			return nil, fmt.Errorf("azurekms: %s: %w", name, err)
		}
	}
	transport := o.Transport
	if transport == nil {
		transport = newTransport(endpoint)
	}
	options := azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: bounded{transport},
		Retry:     policy.RetryOptions{MaxRetries: -1}, // package encrypt repeats
		Telemetry: policy.TelemetryOptions{Disabled: true},
	}}
	client, err := azkeys.NewClient("https://"+name.host, credential, &options)
	if err != nil {
		return nil, fmt.Errorf("azurekms: %s: %w", name, err)
	}
	return &Key{uri, name, client}, nil
}

// Type returns [TypeRSA] or [TypeAES], by the algorithm of the URI.
func (k *Key) Type() string {
	if k.name.algorithm == azkeys.EncryptionAlgorithmA256KW {
		return TypeAES
	}
	return TypeRSA
}

// Resource returns what key ids are made from (FORMAT.md §8.3): the identifier of
// the key in lower case, without a version.
func (k *Key) Resource() []byte { return []byte(k.name.id()) }

// KeyID returns the id of the key in the artifact of b. All versions of a key
// have one id.
func (k *Key) KeyID(b encrypt.Binding) string { return b.KeyID(k.Type(), k.Resource()) }

// CallsOut returns true.
func (k *Key) CallsOut() bool { return true }

// Class returns encrypt.PostQuantum for A256KW, and encrypt.Classical for RSA,
// which falls to a quantum computer also in retrospect.
func (k *Key) Class() encrypt.WrapClass {
	if k.Type() == TypeAES {
		return encrypt.PostQuantum
	}
	return encrypt.Classical
}

// Wrap implements encrypt.Recipient with wrapKey.
func (k *Key) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := ctx.Err(); err != nil {
		return encrypt.Stanza{}, err
	}
	out, err := k.client.WrapKey(ctx, k.name.name, k.name.version, azkeys.KeyOperationParameters{Algorithm: &k.name.algorithm, Value: key}, nil)
	if err != nil {
		return encrypt.Stanza{}, k.failure("wrapKey", err)
	}
	version, err := k.name.versionOf(out.KID)
	if err != nil {
		return encrypt.Stanza{}, fmt.Errorf("azurekms: wrapKey of %s: %w", k.name, err)
	}
	if n := len(out.Result); n == 0 || n > maxBody {
		return encrypt.Stanza{}, fmt.Errorf("azurekms: wrapKey of %s: the service returned %d bytes, want 1 to %d", k.name, n, maxBody)
	}
	return encrypt.Stanza{Type: k.Type(), KeyID: k.KeyID(b), Params: map[string]string{versionParam: version}, Body: out.Result}, nil
}

// Unwrap implements encrypt.Identity with unwrapKey. The version is the one
// thing that is taken from s: 32 hexadecimal digits, of the key and the vault
// that k names. What that does not decrypt is encrypt.ErrDecrypt.
func (k *Key) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != k.Type() || s.KeyID != k.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	version := s.Params[versionParam]
	if len(s.Params) != 1 || !versionPattern.MatchString(version) || len(s.Body) == 0 || len(s.Body) > maxBody {
		return nil, fmt.Errorf("%s stanza: %w", s.Type, encrypt.ErrDecrypt)
	}
	if k.name.version != "" && version != k.name.version {
		return nil, encrypt.ErrNotMine
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	out, err := k.client.UnwrapKey(ctx, k.name.name, version, azkeys.KeyOperationParameters{Algorithm: &k.name.algorithm, Value: s.Body}, nil)
	if err != nil {
		return nil, k.failure("unwrapKey", err)
	}
	return out.Result, nil
}

// String returns the URI of the key.
func (k *Key) String() string { return k.uri }

// Format writes the URI for every verb: the SDK's client, which knows
// credentials, is never formatted.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.uri) }

// MarshalText returns the URI.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.uri), nil }
