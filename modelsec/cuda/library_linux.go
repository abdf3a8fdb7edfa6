// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build amd64 || arm64

package cuda

import (
	"fmt"

	"github.com/ebitengine/purego"
)

// openDriver binds the functions of a library. It stays open: a driver that was
// started must not be unloaded.
func openDriver(path string) (*driver, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	d := new(driver)
	for _, s := range d.symbols() {
		address, err := purego.Dlsym(handle, s.name)
		if err != nil {
			return nil, fmt.Errorf("%w: the driver is older than CUDA %d.%d: %w", ErrUnavailable, minVersion/1000, minVersion%1000/10, err)
		}
		purego.RegisterFunc(s.function, address)
	}
	return d, d.start()
}
