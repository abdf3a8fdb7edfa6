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

func (kernels) pairing() bool { return false }
func (kernels) both(int) bool { return false }

// paired is never used here.
type paired struct{}

func (*paired) reset()                                                            {}
func (*paired) write([]byte)                                                      {}
func (*paired) part([]byte) (sum [Size]byte)                                      { return sum }
func (*paired) parts(kernels, [][Size]byte, [][]byte, int) (before, after paired) { return }
func (*paired) sum() (sum [Size]byte)                                             { return sum }
func (*paired) confirms([]byte, [Size]byte, paired) bool                          { return false }
