// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package modelsec moves model weights between a directory, an OCI registry
// and the process that uses them, and lets through only what an identity you
// trust has attested.
//
// Two calls do most of the work:
//
//	d, err := c.Push(ctx, "registry.example.com/team/llama:v3", os.DirFS("llama"), &modelsec.PushOptions{
//		Recipients: []encrypt.Recipient{team}, Signer: signer, Statements: []provenance.Statement{slsa}})
//	report, err := c.Pull(ctx, "registry.example.com/team/llama:v3", "/models/llama", policy, nil)
//
// # What verified means
//
// A reference is resolved once. The manifest it names is hashed, its
// attestations are verified and judged by the policy, and only then is
// anything else read. The manifest digest covers the index, the index covers
// every segment, and no byte of a segment reaches a caller or a file before
// its own SHA-256, and in the encrypted profile its own AES-GCM tag, was
// checked. A *Model exists only for an artifact that passed its policy.
// docs/FORMAT.md has the bytes, docs/THREATMODEL.md what is and is not promised.
//
// # Compatibility
//
// Artifacts written by any version 1.x can be read by every later 1.x. Before
// v1.0 the Go API may change between minor versions.
package modelsec
