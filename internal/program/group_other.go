// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package program

import "os/exec"

// ownGroup does nothing here: the program itself is killed when the context of
// cmd ends, its children see their pipes closed.
func ownGroup(*exec.Cmd) {}

func killGroup(int) error { return nil }
