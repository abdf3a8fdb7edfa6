// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package pages

// alloc and release leave memory to the collector.
func alloc(n int) []byte { return make([]byte, n) }

func release([]byte) {}
