// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package staging

import "os"

// reserve sets the size and leaves the blocks to the writes.
func reserve(f *os.File, size int64) error { return f.Truncate(size) }

// space knows nothing: the writes will find out.
func space(*os.File) (free int64, memory bool, err error) { return -1, false, nil }

// otherMount leaves it to Publish to meet a mount point.
func otherMount(parent, child *os.File) (bool, error) { return false, nil }
