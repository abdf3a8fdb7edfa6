// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"os"
)

func (m *Model) memfd(context.Context, *operation, int) (*os.File, error) {
	return nil, fmt.Errorf("sealed files in memory: %w", errors.ErrUnsupported)
}

// CheckSealed reports whether f is a file in memory that nobody can change any
// more. On this system there are none: its error is errors.ErrUnsupported.
func CheckSealed(*os.File) error {
	return fmt.Errorf("sealed files in memory: %w", errors.ErrUnsupported)
}
