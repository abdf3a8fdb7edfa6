// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"
)

// slot is one place of the ring: pinned memory, what was read back of it, and a
// stream for both ways. One goroutine has it at a time.
type slot struct {
	driver *driver
	memory []byte
	check  []byte // nil: no read-back
	stream uintptr
	event  uintptr
}

// newSlot makes a slot. One that is made in part comes with the error, to be
// closed.
func (d *Device) newSlot(readBack bool) (*slot, error) {
	s := &slot{driver: d.driver}
	var err error
	if s.memory, err = d.driver.pin(d.slot); err != nil {
		return s, err
	}
	if readBack {
		if s.check, err = d.driver.pin(d.slot); err != nil {
			return s, err
		}
	}
	if err := d.driver.check("cuStreamCreate", d.driver.streamCreate(&s.stream, streamNonBlocking)); err != nil {
		return s, err
	}
	return s, d.driver.check("cuEventCreate", d.driver.eventCreate(&s.event, eventBlockingSync|eventDisableTiming))
}

// pin allocates host memory that the device reads and writes by itself.
func (d *driver) pin(n int64) ([]byte, error) {
	var p unsafe.Pointer
	if err := d.check("cuMemHostAlloc", d.allocHost(&p, uintptr(n), hostAllocPortable)); err != nil {
		return nil, err
	}
	return unsafe.Slice((*byte)(p), n), nil
}

// close wipes and frees all that the slot has, whatever fails.
func (s *slot) close() error {
	d := s.driver
	var errs []error
	if s.event != 0 {
		errs = append(errs, d.check("cuEventDestroy", d.eventDestroy(s.event)))
	}
	if s.stream != 0 {
		errs = append(errs, d.check("cuStreamDestroy", d.streamDestroy(s.stream)))
	}
	for _, b := range [][]byte{s.check, s.memory} {
		if b != nil {
			clear(b)
			errs = append(errs, d.check("cuMemFreeHost", d.freeHost(unsafe.Pointer(&b[0]))))
		}
	}
	return errors.Join(errs...)
}

// copy puts a batch, which the slot holds, on the device and reads it back. No
// copy is under way when it returns. The context must be current.
func (s *slot) copy(b batch, base uint64) error {
	err := s.issue(b, base)
	if err == nil {
		err = s.driver.check("cuEventSynchronize", s.driver.eventSync(s.event))
	}
	if err != nil {
		return errors.Join(err, s.driver.check("cuStreamSynchronize", s.driver.streamSync(s.stream)))
	}
	if s.check == nil || bytes.Equal(s.memory[:b.size], s.check[:b.size]) {
		return nil
	}
	for from, p := range b.offsets() {
		if n := p.tensor.Size; !bytes.Equal(s.memory[from:from+n], s.check[from:from+n]) {
			return fmt.Errorf("%w: %d bytes of %q from %d", ErrReadBack, n, p.tensor.File, p.tensor.Offset)
		}
	}
	return ErrReadBack
}

// issue asks for all copies of a batch.
func (s *slot) issue(b batch, base uint64) error {
	d := s.driver
	for from, p := range b.offsets() {
		if err := d.check("cuMemcpyHtoDAsync", d.toDevice(base+uint64(p.at), unsafe.Pointer(&s.memory[from]), uintptr(p.tensor.Size), s.stream)); err != nil {
			return err
		}
	}
	if s.check != nil {
		for from, p := range b.offsets() {
			if err := d.check("cuMemcpyDtoHAsync", d.fromDevice(unsafe.Pointer(&s.check[from]), base+uint64(p.at), uintptr(p.tensor.Size), s.stream)); err != nil {
				return err
			}
		}
	}
	return d.check("cuEventRecord", d.eventRecord(s.event, s.stream))
}
