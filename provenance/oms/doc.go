// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package oms reads and writes signatures of OpenSSF Model Signing 1.0, the
// model.sig beside a model's files: a Sigstore bundle whose statement lists the
// digest of every file.
//
//	signer, err := oms.KeySigner(key)
//	bundle, err := oms.Sign(ctx, signer, os.DirFS("llama"), "llama", nil)
//
//	bundle, err := provenance.ParseBundle(text)
//	result, err := oms.Verify(ctx, provenance.KeyVerifier(key), bundle, os.DirFS("llama"), nil)
//
// Verify takes the file system of an opened model as well as a directory. What
// model-signing 0.3.1 and later wrote is read, with a key, a certificate or an
// identity (a Verifier of provenance/sigstore). Of files the whole and, for
// reading, shards are known; of hashes SHA-256, the one that all must know.
//
// A signature is about the files and knows nothing of an artifact: whether an
// artifact may be opened is decided by a policy. The package needs no network.
// All functions may be called concurrently.
package oms
