// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package provenance says who made a model and whether that is good enough.
//
// A Statement is signed into a Bundle by a Signer, a Verifier proves who
// signed it, and a Policy judges what was proven:
//
//	signer, err := provenance.KeySigner(key)
//	payload, err := statement.Encode(manifest)
//	bundle, err := signer.Sign(ctx, provenance.PayloadType, payload)
//
//	policy, err := provenance.ParsePolicy(document)
//	report := policy.Evaluate(provenance.Evidence{ … })
//
// Everything fails closed. The zero Policy refuses everything, a Policy with an
// error refuses everything, and a predicate type whose meaning is unknown
// satisfies nothing. What a key or an identity is trusted for comes from the
// Policy alone: nothing inside a bundle chooses a key, an algorithm or a
// requirement. A Report says what held, and what would have satisfied the rest.
//
// The package does no I/O and reads no clock. Wire formats are those of
// FORMAT.md §9 and are stable; the JSON forms of Policy and Report are stable
// from version 1 on.
package provenance

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
)

// Predicate types that this package knows the meaning of (POLICY.md §2 and
// FORMAT.md §8.5).
const (
	PredicateRelease    = "https://modelsec.github.io/release/v1"
	PredicateCosignSign = "https://sigstore.dev/cosign/sign/v1"
	PredicateSLSA       = "https://slsa.dev/provenance/v1"
	PredicateGrant      = "https://modelsec.github.io/grant/v1"
)

// Signer signs a payload as a DSSE envelope and returns it as a Sigstore bundle.
// It signs what it is given: that the payload says the right thing is the
// caller's duty. Sign may be called concurrently.
type Signer interface {
	Sign(ctx context.Context, payloadType string, payload []byte) (*Bundle, error)
}

// Verifier proves who signed a bundle. It returns an error for a bundle that it
// cannot prove, be it forged or of a kind it knows nothing about; a caller with
// several verifiers asks each. A Verifier never derives from the bundle what it
// takes to trust the bundle. Verify may be called concurrently.
type Verifier interface {
	Verify(ctx context.Context, b *Bundle) (*Verified, error)
}

// Verified is what a Verifier proved about one bundle.
type Verified struct {
	// Signer is who signed: a key, or an identity that an issuer vouched for.
	Signer Principal
	// Statement is what was signed.
	Statement Statement
	// Subjects is the SHA-256 digest of every subject of the statement.
	Subjects []digest.Digest
	// Times are the times at which a third party that the Verifier trusts saw
	// the signature: signed timestamps and integrated times of logs.
	Times []time.Time
	// Attestation is the digest of the bundle, for reports. May be empty.
	Attestation digest.Digest
	// LogEntries, Timestamps and SCTs count verified transparency log entries,
	// signed timestamps and certificate timestamps.
	LogEntries, Timestamps, SCTs int
}
