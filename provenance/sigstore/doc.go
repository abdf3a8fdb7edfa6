// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package sigstore signs and verifies with Sigstore: identities that an issuer
// vouches for instead of keys that somebody must keep, transparency logs and
// timestamps.
//
//	verifier, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{root}})
//	client := modelsec.Client{Verifiers: []provenance.Verifier{verifier}}
//	report, err := client.Pull(ctx, ref, dir, provenance.RequireIdentity(issuer, subject), nil)
//
//	signer, err := sigstore.NewSigner(sigstore.SignerOptions{
//		TrustedRoot: root, SigningConfig: config, Token: cosign.AmbientToken,
//	})
//
// A Verifier proves and counts; what is enough is for a provenance.Policy to
// say. Whom to believe is said by trusted roots, which the caller gives as bytes:
// nothing is fetched, and a Verifier works without a network. Fetch gets the
// current ones of an instance over TUF, for callers that ask for it.
//
// The package is a module of its own, since it brings grpc, protobuf and some
// eighty modules (testdata/modules.txt). It prints nothing, except that
// sigstore-go writes a line to standard error for certificates of curves P-384
// and P-521 whose signature does not verify at first.
package sigstore
