// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package modelsec_test

import "syscall"

func makePipe(file string) error { return syscall.Mkfifo(file, 0o600) }
