// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package awskms wraps the keys of models with AWS Key Management Service.
//
// A [Key] names one symmetric key of the service and is both an
// encrypt.Recipient (kms:Encrypt) and an encrypt.Identity (kms:Decrypt). What
// is sent are the 128 bytes of a grant (FORMAT.md §8.2) and an encryption
// context that names the artifact, which the service authenticates and writes
// to CloudTrail. No model and no file name is sent.
//
// Credentials are the caller's: environment, shared configuration, web identity,
// container or instance role, in the order of the AWS SDK. Every call is one
// request; package encrypt decides whether another follows.
package awskms

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"

	"github.com/modelsec/modelsec-go/encrypt"
)

// Type is the type of the stanzas of this package (FORMAT.md §8.4).
const Type = "aws-kms"

// maxBody is far above what the service returns for 128 bytes, and below what
// it takes.
const maxBody = 6 << 10

// A Key is a symmetric key in AWS KMS. It implements encrypt.Recipient,
// Identity, Keyed, Caller and Classed, is safe for concurrent use, and holds no
// key material: credentials stay in the SDK's configuration, and formatting a
// Key shows its URI alone.
type Key struct {
	uri    string
	arn    keyARN
	client *kms.Client
}

// Options are the optional settings of [New].
type Options struct {
	// Config is used in place of the SDK's default configuration. Its region
	// gives way to that of the key, and its retryer to a single attempt.
	Config *aws.Config
}

// New returns the key that a URI names:
//
//	awskms:///arn:aws:kms:REGION:ACCOUNT:key/ID[?endpoint=URL]
//
// The key is named by its ARN, for an alias may be moved to another key. The
// endpoint is for VPC endpoints and test servers; without TLS it must be a
// loopback address. Without it the SDK's own settings decide
// (AWS_ENDPOINT_URL_KMS, AWS_USE_FIPS_ENDPOINT). New reads configuration files
// and makes no request.
func New(ctx context.Context, uri string, o *Options) (*Key, error) {
	arn, endpoint, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	var c aws.Config
	if o != nil && o.Config != nil {
		c = o.Config.Copy()
	} else if c, err = config.LoadDefaultConfig(ctx); err != nil {
		return nil, fmt.Errorf("awskms: configuration of the AWS SDK: %w", err)
	}
	c.Region = arn.region
	client := kms.NewFromConfig(c, func(k *kms.Options) {
		k.Retryer = aws.NopRetryer{} // package encrypt repeats
		k.HTTPClient = bounded{k.HTTPClient}
		if endpoint != "" {
			k.BaseEndpoint = &endpoint
		}
	})
	return &Key{uri, arn, client}, nil
}

// Resource returns what key ids are made from (FORMAT.md §8.3): the ARN, without
// the Region where the key is a multi-Region key.
func (k *Key) Resource() []byte { return []byte(k.arn.name()) }

// KeyID returns the id of the key in the artifact of b. A multi-Region key has
// one id in all its Regions.
func (k *Key) KeyID(b encrypt.Binding) string { return b.KeyID(Type, k.Resource()) }

// CallsOut returns true.
func (k *Key) CallsOut() bool { return true }

// Class returns encrypt.PostQuantum: the service wraps with AES-256-GCM, so what
// lies at the registry does not fall to a quantum computer.
func (k *Key) Class() encrypt.WrapClass { return encrypt.PostQuantum }

// Wrap implements encrypt.Recipient with kms:Encrypt.
func (k *Key) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := ctx.Err(); err != nil {
		return encrypt.Stanza{}, err
	}
	out, err := k.client.Encrypt(ctx, &kms.EncryptInput{
		KeyId: aws.String(k.arn.String()), Plaintext: key, EncryptionContext: encryptionContext(b),
	})
	if err != nil {
		return encrypt.Stanza{}, k.failure("kms:Encrypt", err)
	}
	if len(out.CiphertextBlob) == 0 || len(out.CiphertextBlob) > maxBody {
		return encrypt.Stanza{}, fmt.Errorf("awskms: kms:Encrypt of %s: the service returned %d bytes, want 1 to %d", k.arn, len(out.CiphertextBlob), maxBody)
	}
	return encrypt.Stanza{Type: Type, KeyID: k.KeyID(b), Body: out.CiphertextBlob}, nil
}

// Unwrap implements encrypt.Identity with kms:Decrypt. What the service does not
// decrypt under this key and context is encrypt.ErrDecrypt.
func (k *Key) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != Type || s.KeyID != k.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(s.Params) != 0 || len(s.Body) == 0 || len(s.Body) > maxBody {
		return nil, fmt.Errorf("%s stanza: %w", Type, encrypt.ErrDecrypt)
	}
	out, err := k.client.Decrypt(ctx, &kms.DecryptInput{
		KeyId: aws.String(k.arn.String()), CiphertextBlob: s.Body, EncryptionContext: encryptionContext(b),
		EncryptionAlgorithm: types.EncryptionAlgorithmSpecSymmetricDefault,
	})
	if err != nil {
		return nil, k.failure("kms:Decrypt", err)
	}
	return out.Plaintext, nil
}

// encryptionContext is the context of FORMAT.md §8.2 as the service takes it, in
// clear text: key policies can demand parts of it, and CloudTrail shows it.
func encryptionContext(b encrypt.Binding) map[string]string {
	scope := b.Scope
	if scope == "" {
		scope = encrypt.ScopeArtifact
	}
	notAfter := "0"
	if !b.NotAfter.IsZero() {
		notAfter = strconv.FormatInt(b.NotAfter.Unix(), 10)
	}
	return map[string]string{
		"modelsec:scope":      string(scope),
		"modelsec:not-after":  notAfter,
		"modelsec:artifact":   hex.EncodeToString(b.ArtifactID[:]),
		"modelsec:manifest":   string(b.Manifest),
		"modelsec:commitment": hex.EncodeToString(b.Commitment[:]),
	}
}

// String returns the URI of the key.
func (k *Key) String() string { return k.uri }

// Format writes the URI for every verb: the SDK's client, which knows
// credentials, is never formatted.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.uri) }

// MarshalText returns the URI.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.uri), nil }
