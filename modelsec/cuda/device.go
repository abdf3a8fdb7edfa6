// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

	"github.com/modelsec/modelsec-go/modelsec"
)

// Options say which device is used and how much host memory is pinned for it.
type Options struct {
	// Ordinal counts the devices that the driver shows to this process, from
	// 0. Default: 0.
	Ordinal int

	// Slots of the ring: how many batches are on their way at a time, at most
	// 64. Default: 4.
	Slots int

	// SlotSize is the bytes of a slot, 1 MiB to 1 GiB. The ring pins
	// Slots × SlotSize bytes, and as many again to read back. Default: 32 MiB.
	SlotSize int64

	// NoReadBack leaves out copying back and comparing, and the memory for it.
	// Where the link to the device is encrypted the check costs as much as the
	// load itself. Default: check.
	NoReadBack bool

	// Driver is the library to open, a name or a path. By name, the dynamic
	// linker looks for it, in LD_LIBRARY_PATH first. It runs in this process,
	// so it must be trusted like the program. Default: libcuda.so.1.
	Driver string
}

const (
	defaultSlots    = 4
	maxSlots        = 64
	defaultSlotSize = 32 << 20
	minSlotSize     = 1 << 20
	maxSlotSize     = 1 << 30
)

// resolve fills in defaults and refuses what is out of bounds.
func (o *Options) resolve() (Options, error) {
	var r Options
	if o != nil {
		r = *o
	}
	if r.Slots == 0 {
		r.Slots = defaultSlots
	}
	if r.SlotSize == 0 {
		r.SlotSize = defaultSlotSize
	}
	if r.Driver == "" {
		r.Driver = defaultDriver
	}
	switch {
	case r.Ordinal < 0:
		return r, fmt.Errorf("cuda: %w: device %d", modelsec.ErrConfig, r.Ordinal)
	case r.Slots < 1 || r.Slots > maxSlots:
		return r, fmt.Errorf("cuda: %w: %d slots, want 1 to %d", modelsec.ErrConfig, r.Slots, maxSlots)
	case r.SlotSize < minSlotSize || r.SlotSize > maxSlotSize:
		return r, fmt.Errorf("cuda: %w: slots of %d bytes, want %d to %d", modelsec.ErrConfig, r.SlotSize, minSlotSize, maxSlotSize)
	}
	return r, nil
}

// Device is one GPU and a ring of pinned memory to load it through. It uses the
// primary context, which it shares with the CUDA runtime and so with every
// library in the process: what it loads is at hand to them by its address. It
// is safe for concurrent use; loads that run at a time share the ring.
type Device struct {
	driver *driver
	handle int32   // CUdevice
	held   primary // of the ring
	name   string
	slot   int64      // bytes of a slot
	all    []*slot    // that must be freed
	ring   chan *slot // that are free

	mu     sync.RWMutex // read-locked by a Load
	closed bool
}

// Open starts the driver and pins the ring. The caller must close the Device.
//
// Errors: ErrUnavailable where there is nothing to use, after which nothing is
// held; modelsec.ErrConfig for options out of bounds;
// ErrOutOfMemory where the ring cannot be pinned; [*Error] for any call of the
// driver.
func Open(o *Options) (*Device, error) {
	options, err := o.resolve()
	if err != nil {
		return nil, err
	}
	driver, err := openDriver(options.Driver)
	if err != nil {
		return nil, err
	}
	d := &Device{driver: driver, slot: options.SlotSize, ring: make(chan *slot, options.Slots)}
	if err := d.find(options.Ordinal); err != nil {
		return nil, err
	}
	if d.held, err = d.retain(); err != nil {
		return nil, err
	}
	err = d.held.current(func() error {
		for range options.Slots {
			s, err := d.newSlot(!options.NoReadBack)
			d.all = append(d.all, s)
			if err != nil {
				return err
			}
			d.ring <- s
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// find looks a device up.
func (d *Device) find(ordinal int) error {
	var count int32
	if err := d.driver.check("cuDeviceGetCount", d.driver.deviceCount(&count)); err != nil {
		return err
	}
	if ordinal >= int(count) {
		return fmt.Errorf("%w: device %d of %d", ErrUnavailable, ordinal, count)
	}
	if err := d.driver.check("cuDeviceGet", d.driver.deviceGet(&d.handle, int32(ordinal))); err != nil {
		return err
	}
	name := make([]byte, 256)
	if err := d.driver.check("cuDeviceGetName", d.driver.deviceName(&name[0], int32(len(name)), d.handle)); err != nil {
		return err
	}
	name, _, _ = bytes.Cut(name, []byte{0})
	d.name = string(name)
	return nil
}

// Name is what the driver calls the device.
func (d *Device) Name() string { return d.name }

// Close waits for loads that run, then wipes and frees the ring. Memory that was loaded
// stays. It may be called twice; later loads fail with fs.ErrClosed.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	err := d.held.current(func() error {
		var errs []error
		for _, s := range d.all {
			errs = append(errs, s.close())
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, d.held.release())
}

// use keeps the ring until release is called.
func (d *Device) use() (release func(), err error) {
	d.mu.RLock()
	if d.closed {
		d.mu.RUnlock()
		return nil, fmt.Errorf("cuda: load: %w", fs.ErrClosed)
	}
	return d.mu.RUnlock, nil
}

// primary is one hold on the primary context of a device, which lives as long
// as anybody holds it.
type primary struct {
	driver *driver
	device int32
	handle uintptr // CUcontext
}

func (d *Device) retain() (primary, error) {
	c := primary{driver: d.driver, device: d.handle}
	return c, d.driver.check("cuDevicePrimaryCtxRetain", d.driver.contextRetain(&c.handle, c.device))
}

func (c primary) release() error {
	return c.driver.check("cuDevicePrimaryCtxRelease", c.driver.contextRelease(c.device))
}

// current runs f with the context as that of the thread, which keeps what it
// had before.
func (c primary) current(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.driver.check("cuCtxPushCurrent", c.driver.contextPush(c.handle)); err != nil {
		return err
	}
	err := f()
	var popped uintptr
	return errors.Join(err, c.driver.check("cuCtxPopCurrent", c.driver.contextPop(&popped)))
}
