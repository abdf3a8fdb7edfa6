// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/modelsec/modelsec-go/provenance"
)

// instance is one Sigstore deployment as its trusted root describes it, and the
// keys of the caller.
type instance struct {
	material  root.TrustedMaterial
	certified *verify.Verifier // nil where the root has no certificate authority
	keys      []trustedKey
}

type trustedKey struct {
	pem      string
	material root.TrustedMaterial
	verifier *verify.Verifier
}

// newInstance fixes what is demanded before any bundle is seen. Without text the
// instance has no services.
func newInstance(text []byte, keys []crypto.PublicKey) (instance, error) {
	in := instance{material: &root.BaseTrustedMaterial{}}
	if text != nil {
		if len(text) > maxRoot {
			return in, fmt.Errorf("%d bytes, limit %d", len(text), maxRoot)
		}
		tr, err := root.NewTrustedRootFromJSON(text)
		if err != nil {
			return in, err
		}
		in.material = tr
	}
	if err := in.trustCertificates(len(keys) > 0); err != nil {
		return in, err
	}
	for _, pub := range keys {
		k, err := in.trust(pub)
		if err != nil {
			return in, err
		}
		in.keys = append(in.keys, k)
	}
	return in, nil
}

func (in *instance) trustCertificates(otherwiseUseful bool) error {
	if len(in.material.FulcioCertificateAuthorities()) == 0 {
		if otherwiseUseful {
			return nil
		}
		return errors.New("no certificate authority, and no keys are given: nothing could be proven")
	}
	if len(in.material.RekorLogs())+len(in.material.TimestampingAuthorities()) == 0 {
		return errors.New("neither a log nor a timestamp authority, and certificates of minutes need one to say when")
	}
	options := []verify.VerifierOption{verify.WithoutStatementPredicate(), verify.WithObserverTimestamps(1)}
	if len(in.material.RekorLogs()) > 0 {
		options = append(options, verify.WithTransparencyLog(1))
	}
	if len(in.material.CTLogs()) > 0 {
		options = append(options, verify.WithSignedCertificateTimestamps(1))
	}
	var err error
	in.certified, err = verify.NewVerifier(in.material, options...)
	return err
}

func (in *instance) trust(pub crypto.PublicKey) (trustedKey, error) {
	// The key id is also the check that the key is of a supported kind.
	if _, err := provenance.KeyID(pub); err != nil {
		return trustedKey{}, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return trustedKey{}, err
	}
	v, err := signature.LoadDefaultVerifier(pub)
	if err != nil {
		return trustedKey{}, err
	}
	key := root.NewExpiringKey(v, time.Time{}, time.Time{})
	k := trustedKey{
		pem: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		// The hint of a bundle does not choose the key: each is tried.
		material: root.TrustedMaterialCollection{in.material, root.NewTrustedPublicKeyMaterial(
			func(string) (root.TimeConstrainedVerifier, error) { return key, nil })},
	}
	k.verifier, err = verify.NewVerifier(k.material, verify.WithoutStatementPredicate(), verify.WithNoObserverTimestamps())
	return k, err
}

func (in *instance) prove(entity *bundle.Bundle, artifact func() (verify.ArtifactPolicyOption, error)) (*provenance.Verified, error) {
	content, err := entity.VerificationContent()
	if err != nil {
		return nil, err
	}
	if content.Certificate() == nil {
		return in.proveKey(entity, artifact)
	}
	if in.certified == nil {
		return nil, errors.New("signed under a certificate, and no certificate authority is trusted")
	}
	policy, err := artifact()
	if err != nil {
		return nil, err
	}
	result, err := in.certified.Verify(entity, verify.NewPolicy(policy, verify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return nil, err
	}
	out := &provenance.Verified{}
	if out.Signer, err = principal(content.Certificate(), result.Signature.Certificate); err != nil {
		return nil, err
	}
	if out.LogEntries, _, err = logEntries(entity, in.material); err != nil {
		return nil, err
	}
	for _, t := range result.VerifiedTimestamps {
		out.Times = append(out.Times, t.Timestamp)
		if t.Type == "TimestampAuthority" {
			out.Timestamps++
		}
	}
	out.SCTs, err = certificateTimestamps(content.Certificate(), out.Times[0], in.material)
	return out, err
}

// proveKey demands nothing but a signature by a key that the caller gave. Times
// and log entries are counted; a key is not bound to any.
func (in *instance) proveKey(entity *bundle.Bundle, artifact func() (verify.ArtifactPolicyOption, error)) (*provenance.Verified, error) {
	if len(in.keys) == 0 {
		return nil, errors.New("signed with a key, and no key is trusted")
	}
	for _, k := range in.keys {
		policy, err := artifact()
		if err != nil {
			return nil, err
		}
		if _, err := k.verifier.Verify(entity, verify.NewPolicy(policy, verify.WithKey())); err != nil {
			continue
		}
		out := &provenance.Verified{Signer: provenance.Principal{Key: k.pem}}
		var logged []root.Timestamp
		if out.LogEntries, logged, err = logEntries(entity, k.material); err != nil {
			return nil, err
		}
		for _, t := range logged {
			out.Times = append(out.Times, t.Time)
		}
		stamped, _, err := verify.VerifySignedTimestamp(entity, k.material)
		if err != nil {
			return nil, err
		}
		for _, t := range stamped {
			out.Times = append(out.Times, t.Time)
		}
		out.Timestamps = len(stamped)
		return out, nil
	}
	return nil, fmt.Errorf("signed by none of the %d keys", len(in.keys))
}

// logEntries counts the logs that have a verified entry and returns the times
// that they vouch for. An entry of a known log that is not about the bundle is
// an error. sigstore-go checks thresholds and does not count, so it is asked for
// one more until it refuses; there are never more logs than the root has.
func logEntries(entity *bundle.Bundle, material root.TrustedMaterial) (n int, times []root.Timestamp, err error) {
	if times, err = verify.VerifyTlogEntry(entity, material, 0, true); err != nil {
		return 0, nil, err
	}
	for n < len(material.RekorLogs()) {
		if _, err := verify.VerifyTlogEntry(entity, material, n+1, false); err != nil {
			break
		}
		n++
	}
	return n, times, nil
}

// certificateTimestamps counts in the same way.
func certificateTimestamps(leaf *x509.Certificate, at time.Time, material root.TrustedMaterial) (n int, err error) {
	if len(material.CTLogs()) == 0 {
		return 0, nil
	}
	withKnownExtensions(leaf)
	chains, err := verify.VerifyLeafCertificate(at, leaf, material)
	if err != nil {
		return 0, err
	}
	for n < len(material.CTLogs()) && verify.VerifySignedCertificateTimestamp(chains, n+1, material) == nil {
		n++
	}
	return n, nil
}
