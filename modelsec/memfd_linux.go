// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"github.com/modelsec/modelsec-go/internal/index"
)

// From linux/memfd.h and linux/fcntl.h, which syscall does not have.
const (
	mfdCloseOnExec = 0x1
	mfdSealing     = 0x2
	mfdNotExec     = 0x8 // since Linux 6.3
	fcntlAddSeals  = 1033
	fcntlGetSeals  = 1034
	sealSeal       = 0x1
	sealShrink     = 0x2
	sealGrow       = 0x4
	sealWrite      = 0x8
	allSeals       = sealSeal | sealShrink | sealGrow | sealWrite
)

// memfdCreate is the number of the system call, which syscall does not have.
var memfdCreate = map[string]uintptr{
	"386": 356, "amd64": 319, "arm": 385, "arm64": 279, "loong64": 279, "mips": 4354, "mipsle": 4354,
	"mips64": 5314, "mips64le": 5314, "ppc64": 360, "ppc64le": 360, "riscv64": 279, "s390x": 350,
}

// newMemfd makes an empty file in memory.
func newMemfd() (*os.File, error) {
	number, ok := memfdCreate[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("memfd_create on %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	name, err := syscall.BytePtrFromString("modelsec")
	if err != nil {
		return nil, err
	}
	create := func(flags uintptr) (uintptr, syscall.Errno) {
		fd, _, errno := syscall.Syscall(number, uintptr(unsafe.Pointer(name)), flags, 0)
		return fd, errno
	}
	fd, errno := create(mfdCloseOnExec | mfdSealing | mfdNotExec)
	if errno == syscall.EINVAL {
		fd, errno = create(mfdCloseOnExec | mfdSealing)
	}
	switch errno {
	case 0:
		return os.NewFile(fd, "memfd:modelsec"), nil
	case syscall.ENOSYS:
		return nil, fmt.Errorf("memfd_create: %w", errors.ErrUnsupported)
	}
	return nil, os.NewSyscallError("memfd_create", errno)
}

// fcntl calls fcntl(2) on a file.
func fcntl(f *os.File, command, argument uintptr) (result uintptr, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var errno syscall.Errno
	if err := conn.Control(func(fd uintptr) {
		result, _, errno = syscall.Syscall(syscall.SYS_FCNTL, fd, command, argument)
	}); err != nil {
		return 0, err
	}
	if errno != 0 {
		return 0, os.NewSyscallError("fcntl", errno)
	}
	return result, nil
}

// CheckSealed reports whether f is a file in memory that nobody can change any
// more, such as [Model.Memfd] makes: sealed against writing, growing, shrinking
// and further seals. A process that was handed a descriptor calls it before it
// believes that what it reads stays as it is; who wrote the file it must know
// from where the descriptor came.
func CheckSealed(f *os.File) error {
	seals, err := fcntl(f, fcntlGetSeals, 0)
	if err != nil {
		return fmt.Errorf("%w: %s is no file in memory: %w", ErrConfig, f.Name(), err)
	}
	if seals&allSeals != allSeals {
		return fmt.Errorf("%w: %s has seals %#x, want %#x", ErrConfig, f.Name(), seals, allSeals)
	}
	return nil
}

func (m *Model) memfd(ctx context.Context, op *operation, file int) (*os.File, error) {
	size := m.content.files[file].Size
	f, err := newMemfd()
	if err != nil {
		return nil, err
	}
	w := &memfdWriter{m: m, op: op, file: file, out: f, proofs: make(map[int64]pieceProof)}
	if err = w.reserve(size); err == nil {
		err = w.fill(ctx)
	}
	if err == nil {
		_, err = fcntl(f, fcntlAddSeals, allSeals)
	}
	if err == nil {
		err = w.readBack(ctx)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// memfdWriter fills one file in memory and proves that it is what was written.
// Until the seal another process of this user may open the descriptor through
// /proc. So every piece leaves a message authentication code, under a key that
// nobody else has, and is read back when nothing can change any more.
type memfdWriter struct {
	m    *Model
	op   *operation
	file int
	out  *os.File
	aead cipher.AEAD

	mu     sync.Mutex
	proofs map[int64]pieceProof // by offset
}

type pieceProof struct {
	length int64
	tag    []byte
}

// reserve takes the memory now, so that its lack is an error and not a signal
// when a page is touched.
func (w *memfdWriter) reserve(size int64) error {
	if size == 0 {
		return nil
	}
	conn, err := w.out.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		for {
			if failed = syscall.Fallocate(int(fd), 0, 0, size); failed != syscall.EINTR {
				return
			}
		}
	})
	return join(err, os.NewSyscallError("fallocate", failed))
}

func (w *memfdWriter) fill(ctx context.Context) error {
	var key [32]byte
	rand.Read(key[:])
	defer clear(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return err
	}
	if w.aead, err = cipher.NewGCMWithRandomNonce(block); err != nil {
		return err
	}
	defer w.op.watch(w.m.content.files[w.file].Size)()
	return w.m.content.fetch(ctx, w.m.content.segmentsOf(func(file int) bool { return file == w.file }), w.write)
}

// write is the sink.
func (w *memfdWriter) write(layer int, k int64, content []byte) error {
	start, length := w.m.content.index.Geometry(layer).Range(k)
	for _, p := range w.m.content.overlap(layer, start, length) {
		if p.File != w.file {
			continue
		}
		b := content[p.LayerOffset-start:][:p.Length]
		if _, err := w.out.WriteAt(b, p.FileOffset); err != nil {
			return err
		}
		w.prove(p, b)
		w.op.done.Add(p.Length)
	}
	return nil
}

// prove leaves a proof of a piece. The piece is associated data, so that this
// costs one pass of GHASH and no copy.
func (w *memfdWriter) prove(p index.Piece, b []byte) {
	tag := w.aead.Seal(nil, nil, nil, b)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proofs[p.FileOffset] = pieceProof{p.Length, tag}
}

// readBack compares the sealed file with what was written to it.
func (w *memfdWriter) readBack(ctx context.Context) error {
	size := w.m.content.files[w.file].Size
	if info, err := w.out.Stat(); err != nil || info.Size() != size {
		return join(err, fmt.Errorf("%w: the sealed file is not of %d bytes", ErrDigest, size))
	}
	offsets := make([]int64, 0, len(w.proofs))
	var total int64
	for at, p := range w.proofs {
		offsets = append(offsets, at)
		total += p.length
	}
	if total != size {
		return fmt.Errorf("%w: %d bytes of %d were proven", ErrDigest, total, size)
	}
	return parallel(ctx, len(offsets), cap(w.m.c.lanes), func(ctx context.Context, i int) error {
		return w.m.c.lane(ctx, func() error { return w.compare(offsets[i]) })
	})
}

// compare maps one piece, whose pages nobody can change, and checks its proof.
func (w *memfdWriter) compare(at int64) error {
	p := w.proofs[at]
	if p.length == 0 {
		return nil
	}
	skip := at % int64(os.Getpagesize())
	conn, err := w.out.SyscallConn()
	if err != nil {
		return err
	}
	var mapped []byte
	var failed error
	if err := conn.Control(func(fd uintptr) {
		mapped, failed = syscall.Mmap(int(fd), at-skip, int(skip+p.length), syscall.PROT_READ, syscall.MAP_PRIVATE)
	}); err != nil {
		return err
	}
	if failed != nil {
		return os.NewSyscallError("mmap", failed)
	}
	defer syscall.Munmap(mapped)
	if _, err := w.aead.Open(nil, nil, p.tag, mapped[skip:]); err != nil {
		return fmt.Errorf("%w: bytes %d to %d were changed before the file was sealed", ErrDigest, at, at+p.length)
	}
	return nil
}
