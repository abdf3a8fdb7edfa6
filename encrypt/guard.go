// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !goexperiment.runtimesecret

package encrypt

// guard runs f, which handles key material. Built with
// GOEXPERIMENT=runtimesecret, what f leaves in registers, on the stack and in
// unreachable heap is erased.
func guard(f func()) { f() }
