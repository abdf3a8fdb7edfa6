// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"slices"

	"github.com/sigstore/sigstore-go/pkg/fulcio/certificate"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/modelsec/modelsec-go/provenance"
)

// principal is who the certificate authority says signed. Extensions that it did
// not write stay empty, and match no policy that names them.
func principal(leaf *x509.Certificate, s *certificate.Summary) (provenance.Principal, error) {
	// With two names, which of them counts would be a matter of taste.
	if n := len(leaf.URIs) + len(leaf.EmailAddresses) + len(leaf.DNSNames) + len(leaf.IPAddresses); n > 1 {
		return provenance.Principal{}, fmt.Errorf("certificate names %d subjects, want exactly 1", n)
	}
	if s.Issuer == "" {
		return provenance.Principal{}, fmt.Errorf("certificate of %.100q does not say who vouches for it (extension 1.3.6.1.4.1.57264.1.8)", s.SubjectAlternativeName)
	}
	return provenance.Principal{
		Issuer:            s.Issuer,
		Subject:           s.SubjectAlternativeName,
		SourceRepository:  s.SourceRepositoryURI,
		SourceOwnerID:     s.SourceRepositoryOwnerIdentifier,
		SourceRef:         s.SourceRepositoryRef,
		Trigger:           s.BuildTrigger,
		RunnerEnvironment: s.RunnerEnvironment,
	}, nil
}

// withKnownExtensions tells crypto/x509 that subjects of the form OtherName,
// which it cannot read, were read: Fulcio marks them critical.
func withKnownExtensions(leaf *x509.Certificate) {
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(slices.Clone(leaf.UnhandledCriticalExtensions),
		func(id asn1.ObjectIdentifier) bool { return id.Equal(cryptoutils.SANOID) })
}
