// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package trust holds signing and verification against the real parts of
// Sigstore: it has tests only, and nothing imports it.
//
// Fulcio v1.8.8, Rekor v2 (rekor-tiles v2.3.0, POSIX storage) and the timestamp
// authority v2.1.3 run as processes on loopback, for an OIDC issuer that is part
// of the tests. The cosign CLIs v2.6.5 (cosign) and v3.1.3 (cosign-v3) and npm's
// @sigstore/verify 4 verify what we signed, and we what cosign signed. All of
// them are found on PATH, or under MODELSEC_NODE_MODULES; .ci/run installs them.
// A test whose part is missing is skipped by name, and fails where CI is "true".
package trust
