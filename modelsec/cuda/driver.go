// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import (
	"fmt"
	"strings"
	"unsafe"
)

const (
	defaultDriver = "libcuda.so.1"
	minVersion    = 11000 // 11.0, which brought cuDevicePrimaryCtxRelease_v2

	// From cuda.h.
	hostAllocPortable  = 0x1 // pinned for all contexts
	streamNonBlocking  = 0x1 // does not wait for the stream of the legacy kind
	eventBlockingSync  = 0x1 // who waits sleeps
	eventDisableTiming = 0x2

	maxText = 512 // bytes of what the driver says about an error
)

// driver is the functions of libcuda that this package calls. They return a
// CUresult. Those that name no device or context need a current context, see
// Device.current.
type driver struct {
	initialise     func(flags uint32) int32
	version        func(version *int32) int32
	errorName      func(code int32, name **byte) int32
	errorText      func(code int32, text **byte) int32
	deviceCount    func(count *int32) int32
	deviceGet      func(device *int32, ordinal int32) int32
	deviceName     func(name *byte, length int32, device int32) int32
	contextRetain  func(context *uintptr, device int32) int32
	contextRelease func(device int32) int32
	contextPush    func(context uintptr) int32
	contextPop     func(context *uintptr) int32
	alloc          func(pointer *uint64, bytes uintptr) int32
	fill           func(pointer uint64, value uint8, bytes uintptr) int32
	free           func(pointer uint64) int32
	allocHost      func(memory *unsafe.Pointer, bytes uintptr, flags uint32) int32
	freeHost       func(memory unsafe.Pointer) int32
	streamCreate   func(stream *uintptr, flags uint32) int32
	streamSync     func(stream uintptr) int32
	streamDestroy  func(stream uintptr) int32
	eventCreate    func(event *uintptr, flags uint32) int32
	eventRecord    func(event, stream uintptr) int32
	eventSync      func(event uintptr) int32
	eventDestroy   func(event uintptr) int32
	toDevice       func(to uint64, from unsafe.Pointer, bytes uintptr, stream uintptr) int32
	fromDevice     func(to unsafe.Pointer, from uint64, bytes uintptr, stream uintptr) int32
}

// symbol is one function of the library.
type symbol struct {
	name     string
	function any // pointer to the field of driver
}

func (d *driver) symbols() []symbol {
	return []symbol{
		{"cuInit", &d.initialise},
		{"cuDriverGetVersion", &d.version},
		{"cuGetErrorName", &d.errorName},
		{"cuGetErrorString", &d.errorText},
		{"cuDeviceGetCount", &d.deviceCount},
		{"cuDeviceGet", &d.deviceGet},
		{"cuDeviceGetName", &d.deviceName},
		{"cuDevicePrimaryCtxRetain", &d.contextRetain},
		{"cuDevicePrimaryCtxRelease_v2", &d.contextRelease},
		{"cuCtxPushCurrent_v2", &d.contextPush},
		{"cuCtxPopCurrent_v2", &d.contextPop},
		{"cuMemAlloc_v2", &d.alloc},
		{"cuMemsetD8_v2", &d.fill},
		{"cuMemFree_v2", &d.free},
		{"cuMemHostAlloc", &d.allocHost},
		{"cuMemFreeHost", &d.freeHost},
		{"cuStreamCreate", &d.streamCreate},
		{"cuStreamSynchronize", &d.streamSync},
		{"cuStreamDestroy_v2", &d.streamDestroy},
		{"cuEventCreate", &d.eventCreate},
		{"cuEventRecord", &d.eventRecord},
		{"cuEventSynchronize", &d.eventSync},
		{"cuEventDestroy_v2", &d.eventDestroy},
		{"cuMemcpyHtoDAsync_v2", &d.toDevice},
		{"cuMemcpyDtoHAsync_v2", &d.fromDevice},
	}
}

// start initialises the driver, which may be done often.
func (d *driver) start() error {
	if err := d.check("cuInit", d.initialise(0)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	var version int32
	if err := d.check("cuDriverGetVersion", d.version(&version)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if version < minVersion {
		return fmt.Errorf("%w: the driver is for CUDA %d.%d, and %d.%d is needed", ErrUnavailable,
			version/1000, version%1000/10, minVersion/1000, minVersion%1000/10)
	}
	return nil
}

// check makes an error of a result.
func (d *driver) check(call string, code int32) error {
	if code == 0 {
		return nil
	}
	return &Error{Call: call, Code: int(code), Name: say(d.errorName, code), Text: say(d.errorText, code)}
}

// say asks the driver about a result. It does not know all that it returns.
func say(ask func(code int32, text **byte) int32, code int32) string {
	var text *byte
	if ask(code, &text) != 0 || text == nil {
		return "unknown error"
	}
	var b strings.Builder
	for i := range maxText {
		c := *(*byte)(unsafe.Add(unsafe.Pointer(text), i))
		if c == 0 {
			break
		}
		b.WriteByte(c)
	}
	return b.String()
}
