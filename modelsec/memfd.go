// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"io/fs"
	"os"
)

// Memfd returns a file in memory that holds one file of the model and that no
// process can change: it is written, sealed against writing, growing and
// shrinking, and then read back and compared, so that nothing which another
// process of the same user did before the seal is in it (K24). The descriptor
// can be handed to another process, in exec.Cmd.ExtraFiles or over a socket,
// which should check the seals with [CheckSealed] before it believes this.
//
// The memory is that of the file's size, outside of the client's MemoryLimit;
// the system charges it to the control group of this process. The caller must
// close the file, which outlives the model.
//
// Errors: those of a read; errors.ErrUnsupported where the system has no sealed
// files in memory. Linux has.
func (m *Model) Memfd(ctx context.Context, name string) (*os.File, error) {
	op := m.begin("memfd")
	ctx, release, err := m.use(ctx)
	if err != nil {
		return nil, op.fail(err)
	}
	defer release()
	i, err := m.file(name)
	if err != nil {
		return nil, op.fail(&fs.PathError{Op: "open", Path: name, Err: err})
	}
	const reason = "put a file into sealed memory"
	if err := op.audit(ctx, Event{Phase: phaseIntent, Allowed: true, File: name, Reason: reason}); err != nil {
		return nil, op.fail(err)
	}
	f, err := m.memfd(ctx, op, i)
	err = op.outcome(ctx, Event{File: name, Bytes: op.done.Load(), Reason: reason}, err)
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return f, op.fail(err)
}
