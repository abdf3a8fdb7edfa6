// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/modelsec/modelsec-go/provenance"
)

// tokenAudience is whom the tokens of Sigstore are for.
const tokenAudience = "sigstore"

// SignerOptions say who signs and with which services. TrustedRoot,
// SigningConfig and exactly one of Token and Key are required.
type SignerOptions struct {
	// SigningConfig is a signing_config document of version 0.2: which certificate
	// authority, logs and timestamp authorities to ask. Where it has logs of both
	// versions of Rekor, those of version 2 are used.
	SigningConfig []byte
	// TrustedRoot is the trusted_root.json of the same instance. What the services
	// return is verified under it before it is handed out.
	TrustedRoot []byte
	// Token returns an OIDC token for the audience, as cosign.AmbientToken does.
	// It is asked for one token a signature. Each signature has a key of its own,
	// which no one else ever sees.
	Token func(ctx context.Context, audience string) (string, error)
	// Key signs without a certificate: ECDSA P-256, or P-384 and P-521 where no
	// log of version 1 is asked. Logs and timestamp authorities of the
	// SigningConfig are asked as for certificates. For a key alone,
	// and for Ed25519, use provenance.KeySigner.
	Key crypto.Signer
	// Transport makes the requests. Default: http.DefaultTransport.
	Transport http.RoundTripper
}

// NewSigner returns a Signer that asks the services for each signature. It keeps
// no state: Sign may be called concurrently, and what it is given may be signed
// again after an error. What a failed Sign wrote to a log stays there.
func NewSigner(o SignerOptions) (provenance.Signer, error) {
	if (o.Token == nil) == (o.Key == nil) {
		return nil, errors.New("who signs? want either Token or Key")
	}
	if len(o.SigningConfig) == 0 || len(o.TrustedRoot) == 0 {
		return nil, errors.New("want the SigningConfig and the TrustedRoot of the instance to sign with; Fetch gets both")
	}
	if len(o.SigningConfig) > maxRoot {
		return nil, fmt.Errorf("signing configuration of %d bytes, limit %d", len(o.SigningConfig), maxRoot)
	}
	config, err := root.NewSigningConfigFromJSON(o.SigningConfig)
	if err != nil {
		return nil, fmt.Errorf("signing configuration: %w", err)
	}
	s := &signer{token: o.Token, transport: o.Transport, config: config}
	trust := VerifierOptions{TrustedRoots: [][]byte{o.TrustedRoot}}
	if o.Key != nil {
		if s.key, err = newKeypair(o.Key); err != nil {
			return nil, err
		}
		trust.Keys = []crypto.PublicKey{o.Key.Public()}
	}
	if s.verifier, err = NewVerifier(trust); err != nil {
		return nil, err
	}
	chosen, err := chooseServices(config, s.key == nil, time.Now())
	if err != nil {
		return nil, err
	}
	if s.key != nil && len(chosen.logs) > 0 && chosen.logs[0].MajorAPIVersion == 1 && s.key.details.GetHashType() != crypto.SHA256 {
		return nil, errors.New("logs of version 1 take SHA-256 only: want a key of ECDSA P-256, or a log of version 2")
	}
	return s, nil
}

type signer struct {
	key       *keypair // nil: one for each signature
	token     func(ctx context.Context, audience string) (string, error)
	config    *root.SigningConfig
	transport http.RoundTripper
	verifier  *Verifier
}

func (s *signer) Sign(ctx context.Context, payloadType string, payload []byte) (*provenance.Bundle, error) {
	if payloadType == "" || len(payload) == 0 || len(payload) > maxPayload {
		return nil, fmt.Errorf("payload of %d bytes and type %.100q: want a type and 1 to %d bytes", len(payload), payloadType, maxPayload)
	}
	chosen, err := chooseServices(s.config, s.key == nil, time.Now())
	if err != nil {
		return nil, err
	}
	options := chosen.options(ctx, s.transport)
	key := s.key
	if key == nil {
		if key, err = ephemeralKeypair(); err != nil {
			return nil, err
		}
		token, err := s.token(ctx, tokenAudience)
		if err != nil {
			return nil, fmt.Errorf("identity token: %w", err)
		}
		options.CertificateProviderOptions = &sign.CertificateProviderOptions{IDToken: token}
	}
	signed, err := sign.Bundle(&sign.DSSEData{Data: payload, PayloadType: payloadType}, key, options)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("sign with %s: %w", chosen, clipped{err})
	}
	text, err := protojson.Marshal(signed)
	if err != nil {
		return nil, err
	}
	// protojson puts spaces where it likes, so that nobody relies on its output.
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, err
	}
	b, err := provenance.ParseBundle(compact.Bytes())
	if err != nil {
		return nil, err
	}
	// A service that answered nonsense must not be found out by the readers.
	got, err := s.verifier.verifyEnvelope(ctx, b)
	if err != nil {
		return nil, fmt.Errorf("what %s returned is not what the trusted root vouches for: %w", chosen, err)
	}
	if got.LogEntries < len(chosen.logs) || got.Timestamps < len(chosen.stampers) {
		return nil, fmt.Errorf("the trusted root vouches for %d of the %d log entries and %d of the %d timestamps that %s returned",
			got.LogEntries, len(chosen.logs), got.Timestamps, len(chosen.stampers), chosen)
	}
	return b, nil
}

// clipped repeats no more than fits a line of what a service answered.
type clipped struct{ error }

func (c clipped) Error() string { return reason(c.error) }
func (c clipped) Unwrap() error { return c.error }

// ephemeralKeypair is forgotten after one signature.
func ephemeralKeypair() (*keypair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return newKeypair(key)
}
