// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import "unsafe"

// Symbols are the functions that a library must have, and the names under which
// errors speak of them.
func Symbols() (names []string) {
	for _, s := range new(driver).symbols() {
		names = append(names, s.name)
	}
	return names
}

// Read copies a tensor from the device, through a slot of the ring.
func (d *Device) Read(t Tensor) ([]byte, error) {
	var out []byte
	s := <-d.ring
	defer func() { d.ring <- s }()
	for at := int64(0); at < t.Size; at += d.slot {
		n := min(d.slot, t.Size-at)
		err := d.held.current(func() error {
			c := d.driver
			if err := c.check("cuMemcpyDtoHAsync", c.fromDevice(unsafe.Pointer(&s.memory[0]), t.Pointer+uint64(at), uintptr(n), s.stream)); err != nil {
				return err
			}
			return c.check("cuStreamSynchronize", c.streamSync(s.stream))
		})
		if err != nil {
			return nil, err
		}
		out = append(out, s.memory[:n]...)
	}
	return out, nil
}
