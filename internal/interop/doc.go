// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package interop holds the library against servers and tools that others
// wrote: it has tests only, and nothing imports it. They use the public API.
//
// Servers that are Go modules run inside the tests. What is a program is found
// on PATH (docker-registry, skopeo, diff, cosign v2.6.5, oras v1.3.2, modctl
// v0.2.2, python3 with cryptography); .ci/run installs all of it. A test whose
// program is missing is skipped by name, and fails where CI is "true".
//
// Environment:
//
//	MODELSEC_VECTORS       folder of the published vectors; here its set "modelpack"
//	MODELSEC_MODEL         directory of a real model, pushed and pulled as it is
//	MODELSEC_INTEROP_SIZE  bytes of the generated model (default 2 GiB, with -short 64 MiB)
package interop
