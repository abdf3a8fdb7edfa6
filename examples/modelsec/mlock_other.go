// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "errors"

func tryLock() error { return errors.ErrUnsupported }
