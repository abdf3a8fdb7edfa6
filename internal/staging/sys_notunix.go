// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package staging

import (
	"io/fs"
	"os"
)

// canTrust is false where we cannot tell who owns a file: what an earlier
// process left is never taken up.
const canTrust = false

// syncsDirectories is false where a directory cannot be opened for fsync.
const syncsDirectories = false

func ours(fs.FileInfo) bool                   { return true }
func oursOrRoot(fs.FileInfo) bool             { return true }
func sameOwner(fs.FileInfo, fs.FileInfo) bool { return true }
func oneLink(fs.FileInfo) bool                { return true }
func blocks(fs.FileInfo) int64                { return 0 }
func noSpace(error) bool                      { return false }
func lock(*os.File) error                     { return nil }
