// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package cuda loads the tensors of a model into the memory of an NVIDIA GPU.
//
//	d, err := cuda.Open(nil)
//	if errors.Is(err, cuda.ErrUnavailable) {
//		… // load into host memory instead
//	}
//	defer d.Close()
//	weights, err := d.Load(ctx, m, nil)
//	defer weights.Close()
//	for _, t := range weights.Tensors() {
//		engine.Bind(t.Name, t.Shape, t.Pointer)
//	}
//
// # How bytes move
//
// Open makes a ring of slots in pinned host memory, with one stream for each.
// Load allocates all device memory at once, so that its lack is known before
// anything is fetched, and cuts the tensors into batches that fit a slot; a
// tensor larger than a slot becomes several slices, which lie side by side on
// the device. Every slot takes the next batch: [modelsec.Model.LoadTensors]
// puts verified, decrypted bytes into it, they are copied to the device
// asynchronously, copied back, and compared. One slot copies while others
// fetch. Nothing is written to a disk, and no tensor is ever whole in host
// memory unless it fits a slot.
//
// Every batch is one load of modelsec: it has its own pair of audit events, and
// a segment that two batches share is fetched twice, or taken from the client's
// CacheDir. For tensors that lie together that is one segment for each batch: 3 %
// with the defaults of 1 MiB and 32 MiB. Slices of other dimensions than 0 are
// cut by rows again, so that batches of them may share more.
//
// # What it promises
//
// Bytes reach pinned memory only after their segment was verified, and what the
// device holds when Load returns was read back and was equal. The check finds
// faults of memory, bus and driver. It proves nothing against whoever controls
// this process, the driver or the device, and the device may change its memory
// afterwards. Slots hold the plaintext of their last batch until
// [Device.Close]; they and the device's memory are wiped before they are freed.
//
// # Needs
//
// Linux on amd64 or arm64, and the driver's libcuda.so.1 for CUDA 11.0 or
// newer, which is opened when Open is called; neither cgo nor the toolkit. Other
// systems build, and Open says ErrUnavailable. A program built without cgo is
// linked dynamically all the same, since it opens a library.
//
// The tests run against a library of theirs that stands in for the driver, in
// host memory, and against the real driver where the machine has one. So far no
// machine that ran them had: nothing in this package was run on a GPU yet, and
// no speed was measured.
package cuda
