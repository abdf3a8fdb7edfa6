// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/modelsec/modelsec-go/provenance"
)

// VerifierOptions say whom a Verifier believes. At least one of the two is
// required.
type VerifierOptions struct {
	// TrustedRoots are trusted_root.json documents, one for each Sigstore instance
	// that is trusted. A bundle must be proven under one of them alone: the
	// certificates of one instance count nothing with the logs of another.
	TrustedRoots [][]byte
	// Keys prove bundles that were signed with a key, together with the timestamps
	// and log entries that the trusted roots vouch for. ECDSA P-256, P-384, P-521
	// or Ed25519.
	Keys []crypto.PublicKey
}

// Verifier proves who signed a bundle, under trusted roots and keys. It needs no
// network and does not change; its methods may be called concurrently.
//
// Of a certificate it demands, whatever a policy says: that it leads to a
// certificate authority of the trusted root and was valid at every time that a
// timestamp authority or a log of that root vouches for, of which there must be
// one; an entry in a log, where the root has logs; and a certificate timestamp,
// where the root has certificate logs. Of a key it demands the signature. Log
// entries of known logs must be about the bundle, whether they are needed or
// not. How many of each there are is counted, for policies to judge.
type Verifier struct {
	instances []instance
}

var _ provenance.Verifier = (*Verifier)(nil)

// NewVerifier reads the trusted roots. A root that could prove nothing is an
// error.
func NewVerifier(o VerifierOptions) (*Verifier, error) {
	if len(o.TrustedRoots)+len(o.Keys) == 0 {
		return nil, errors.New("nobody to trust: want a trusted root or a key")
	}
	roots := o.TrustedRoots
	if len(roots) == 0 {
		roots = [][]byte{nil}
	}
	v := &Verifier{}
	for i, text := range roots {
		in, err := newInstance(text, o.Keys)
		if err != nil {
			return nil, fmt.Errorf("trusted root %d: %w", i+1, err)
		}
		v.instances = append(v.instances, in)
	}
	return v, nil
}

// Verify proves a statement about an artifact. The subjects of what it returns
// are the caller's to compare.
func (v *Verifier) Verify(ctx context.Context, b *provenance.Bundle) (*provenance.Verified, error) {
	if b == nil {
		return nil, fmt.Errorf("%w: no bundle", provenance.ErrFormat)
	}
	out, err := v.verifyEnvelope(ctx, b)
	if err != nil {
		return nil, err
	}
	e := b.Envelope()
	if e.PayloadType != provenance.PayloadType {
		return nil, fmt.Errorf("%w: payload type %.100q, want %q", provenance.ErrFormat, e.PayloadType, provenance.PayloadType)
	}
	out.Statement, out.Subjects, err = provenance.DecodeStatement(e.Payload, nil)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// verifyEnvelope proves an envelope, whatever is in it.
func (v *Verifier) verifyEnvelope(ctx context.Context, b *provenance.Bundle) (*provenance.Verified, error) {
	entity, err := parse(b.Bytes())
	if err != nil {
		return nil, err
	}
	// Two parsers read the bundle. What one of them proves must be what the other
	// hands out.
	e, theirs := b.Envelope(), entity.GetDsseEnvelope()
	if theirs.GetPayloadType() != e.PayloadType || !bytes.Equal(theirs.GetPayload(), e.Payload) ||
		len(theirs.GetSignatures()) != 1 || !bytes.Equal(theirs.GetSignatures()[0].GetSig(), e.Signature) {
		return nil, fmt.Errorf("%w: bundle reads as two different envelopes", provenance.ErrFormat)
	}
	return v.prove(ctx, entity, func() (verify.ArtifactPolicyOption, error) { return verify.WithoutArtifactUnsafe(), nil })
}

// VerifyArtifact proves a bundle about the content given: its signature is over
// the content (messageSignature), or over a statement that names its digest as a
// subject. The bundle is JSON of version 0.1 to 0.3. Of models, use Verify and
// let a policy judge: the Verified has no Statement and no Subjects.
func (v *Verifier) VerifyArtifact(ctx context.Context, b []byte, content io.ReadSeeker) (*provenance.Verified, error) {
	entity, err := parse(b)
	if err != nil {
		return nil, err
	}
	return v.prove(ctx, entity, func() (verify.ArtifactPolicyOption, error) {
		_, err := content.Seek(0, io.SeekStart)
		return verify.WithArtifact(content), err
	})
}

// VerifyDigest is VerifyArtifact for content that is not at hand, by its digest.
func (v *Verifier) VerifyDigest(ctx context.Context, b []byte, d digest.Digest) (*provenance.Verified, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%.100q: %w", d, err)
	}
	sum, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return nil, err
	}
	entity, err := parse(b)
	if err != nil {
		return nil, err
	}
	return v.prove(ctx, entity, func() (verify.ArtifactPolicyOption, error) {
		return verify.WithArtifactDigest(string(d.Algorithm()), sum), nil
	})
}

func parse(b []byte) (*bundle.Bundle, error) {
	if len(b) > maxBundle {
		return nil, fmt.Errorf("%w: bundle of %d bytes, limit %d", provenance.ErrFormat, len(b), maxBundle)
	}
	entity := new(bundle.Bundle)
	if err := entity.UnmarshalJSON(b); err != nil {
		return nil, fmt.Errorf("%w: bundle: %s", provenance.ErrFormat, reason(err))
	}
	return entity, nil
}

// prove asks one instance after the other.
func (v *Verifier) prove(ctx context.Context, entity *bundle.Bundle, artifact func() (verify.ArtifactPolicyOption, error)) (*provenance.Verified, error) {
	var reasons error
	for _, in := range v.instances {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out, err := in.prove(entity, artifact)
		if err == nil {
			return out, nil
		}
		reasons = errors.Join(reasons, err)
	}
	return nil, fmt.Errorf("%w: %s", provenance.ErrSignature, reason(reasons))
}

// reason puts an error on one line of bounded length. Bundles choose parts of
// the text.
func reason(err error) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(err.Error(), "")), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}
