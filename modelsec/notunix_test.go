// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package modelsec_test

import "os"

// makePipe stands in where a pipe has no name in the file system.
func makePipe(file string) error { return os.Mkdir(file, 0o700) }
