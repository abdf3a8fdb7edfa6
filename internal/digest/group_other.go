// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 || nolanes || purego

package digest

// kernels has no block functions here, so Lanes hash as Sum does.
type kernels struct{}

func kernelsFor(p Path) (k kernels, ok bool) { return kernels{}, p == Auto || p == Single }

func (kernels) width() int                 { return 1 }
func (kernels) take(int) int               { return 1 }
func (kernels) sum([][Size]byte, [][]byte) {}
