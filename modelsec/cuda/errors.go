// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import (
	"errors"
	"fmt"
)

// Errors that callers decide by.
var (
	// ErrUnavailable: this machine has no driver, an old one, one that does
	// not start, or no such device. Loading into host memory works all the
	// same.
	ErrUnavailable = errors.New("cuda: no usable device")

	// ErrOutOfMemory: the device has too little memory left, or the host too
	// little that it may pin. It is an [*Error], which says which call asked.
	ErrOutOfMemory = errors.New("cuda: out of memory")

	// ErrReadBack: what the device holds is not what was copied to it.
	ErrReadBack = errors.New("cuda: the device holds other bytes than were copied to it")
)

// outOfMemory is CUDA_ERROR_OUT_OF_MEMORY.
const outOfMemory = 2

// Error is a call of the driver that failed. The driver reports what went wrong
// on the device at some later call, so that Call may be innocent.
type Error struct {
	Call string // cuMemAlloc, …, without the suffix of a version
	Code int    // CUresult
	Name string // CUDA_ERROR_OUT_OF_MEMORY, …; as the driver says it
	Text string // The driver's sentence about Code.
}

// Error says all of it in one line.
func (e *Error) Error() string {
	return fmt.Sprintf("%s: %s (%d): %s", e.Call, e.Name, e.Code, e.Text)
}

// Is reports that target is ErrOutOfMemory and this is about memory.
func (e *Error) Is(target error) bool {
	return target == ErrOutOfMemory && e.Code == outOfMemory
}
