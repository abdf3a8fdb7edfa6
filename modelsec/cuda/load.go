// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cuda

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/modelsec/modelsec-go/modelsec"
)

// Tensor is a tensor, or a slice of one, in the memory of a device.
type Tensor struct {
	modelsec.Tensor

	// Pointer is where its bytes lie on the device, in C order: a CUdeviceptr
	// of the primary context, a multiple of 256. It is 0 where the tensor has
	// no bytes.
	Pointer uint64

	at int64 // bytes from the start of the memory
}

// Memory is what one Load allocated on a device. Its bytes are plaintext to
// every library in this process, and stay where they are until Close, also when
// the Device and the model are closed.
type Memory struct {
	held    primary
	base    uint64 // CUdeviceptr; 0: nothing was allocated
	size    int64
	tensors []Tensor

	mu     sync.Mutex
	closed bool
}

// Tensors lists what was loaded, in the order asked for. The caller must not
// change it, nor use a Pointer after Close.
func (m *Memory) Tensors() []Tensor { return m.tensors }

// Size is how many bytes were allocated: those of the tensors, each rounded up
// to 256.
func (m *Memory) Size() int64 { return m.size }

// Close wipes the memory and frees it. Whatever on the device uses it must have ended. It
// may be called twice, and concurrently.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.base != 0 {
		d := m.held.driver
		err = m.held.current(func() error {
			wiped := d.check("cuMemsetD8", d.fill(m.base, 0, uintptr(m.size)))
			return errors.Join(wiped, d.check("cuMemFree", d.free(m.base)))
		})
	}
	return errors.Join(err, m.held.release())
}

// Load puts tensors of a model, or slices of them, into memory of the device.
// Nil wants all. All device memory is allocated before the first byte is
// fetched. On success every byte was verified, and read back unless
// [Options.NoReadBack] says otherwise. After an error nothing is left on the
// device.
//
// A cancelled Load returns when the copies that are under way have ended, which
// are one slot's for each slot. It fails with the cause that the context gives.
//
// Errors: those of [modelsec.Model.LoadTensors]; ErrOutOfMemory, ErrReadBack,
// and [*Error] for any call of the driver; fs.ErrClosed after Close;
// modelsec.ErrConfig too for a tensor larger than a slot whose rows are of a
// packed type, end within a byte, and take more than an eighth of a slot.
func (d *Device) Load(ctx context.Context, m *modelsec.Model, want []modelsec.Tensor) (_ *Memory, err error) {
	release, err := d.use()
	if err != nil {
		return nil, err
	}
	defer release()
	// What is not of the model is refused before any memory is taken.
	if _, _, err = m.Cost(ctx, want); err != nil {
		return nil, err
	}
	if want == nil {
		if want, err = m.Tensors(ctx); err != nil {
			return nil, err
		}
	}
	tensors, size, err := layout(want)
	if err != nil {
		return nil, err
	}
	list, err := batches(tensors, d.slot)
	if err != nil {
		return nil, err
	}
	memory, err := d.allocate(tensors, size)
	if err != nil {
		return nil, err
	}
	complete := false
	defer func() {
		if !complete {
			err = errors.Join(err, memory.Close())
		}
	}()
	if err = d.run(ctx, m, list, memory.base); err != nil {
		return nil, err
	}
	complete = true
	return memory, nil
}

// allocate takes memory on the device and says where in it the tensors lie.
func (d *Device) allocate(tensors []Tensor, size int64) (*Memory, error) {
	held, err := d.retain()
	if err != nil {
		return nil, err
	}
	m := &Memory{held: held, size: size, tensors: tensors}
	if size > 0 {
		err = held.current(func() error {
			return d.driver.check("cuMemAlloc", d.driver.alloc(&m.base, uintptr(size)))
		})
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cuda: %d bytes on the device: %w", size, err), m.Close())
	}
	for i := range tensors {
		if tensors[i].Size > 0 {
			tensors[i].Pointer = m.base + uint64(tensors[i].at)
		}
	}
	return m, nil
}

// run sends all batches through the ring. The first failure ends the others.
func (d *Device) run(ctx context.Context, m *modelsec.Model, list []batch, base uint64) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(cap(d.ring), len(list)) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(list)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				if err := d.send(ctx, m, list[i], base); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// send takes a slot, fills it with a batch and puts that on the device.
func (d *Device) send(ctx context.Context, m *modelsec.Model, b batch, base uint64) error {
	var s *slot
	select {
	case s = <-d.ring:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { d.ring <- s }()
	var want []modelsec.Tensor
	for _, p := range b.pieces {
		want = append(want, p.tensor)
	}
	// Asked for in the order of want, one after the other.
	free := s.memory
	alloc := func(t modelsec.Tensor) ([]byte, error) {
		place := free[:t.Size:t.Size]
		free = free[t.Size:]
		return place, nil
	}
	if err := m.LoadTensors(ctx, want, modelsec.TensorSink{Alloc: alloc}); err != nil {
		return err
	}
	return d.held.current(func() error { return s.copy(b, base) })
}
