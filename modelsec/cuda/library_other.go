// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux || (!amd64 && !arm64)

package cuda

import (
	"fmt"
	"runtime"
)

func openDriver(string) (*driver, error) {
	return nil, fmt.Errorf("%w: %s on %s is not supported", ErrUnavailable, runtime.GOOS, runtime.GOARCH)
}
