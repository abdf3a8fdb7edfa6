// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build goexperiment.runtimesecret

package encrypt

import runtimesecret "runtime/secret"

// guard runs f, which handles key material, and then has what f left in
// registers, on the stack and in unreachable heap erased, where the runtime can:
// on linux/amd64 and linux/arm64.
func guard(f func()) { runtimesecret.Do(f) }
