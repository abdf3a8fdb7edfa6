// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// verify demands every byte of every file in the target. Tools may write more:
// manifests, recipes, markers.
func (f *field) verify(digests bool) error {
	for _, name := range f.files {
		source := filepath.Join(f.source, name)
		target := filepath.Join(f.target, name)
		if digests {
			sum, err := sumFile(source)
			if err != nil {
				return err
			}
			target = filepath.Join(f.target, fmt.Sprintf("%x", sum))
		}
		if err := sameFile(source, target); err != nil {
			return err
		}
	}
	return nil
}

// buffers are here once, because the memory of this process shows in what is
// measured of its children.
var buffers [2][256 << 10]byte

func sumFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.CopyBuffer(h, struct{ io.Reader }{f}, buffers[0][:])
	return h.Sum(nil), err
}

func sameFile(a, b string) error {
	x, err := os.Open(a)
	if err != nil {
		return err
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return err
	}
	defer y.Close()
	for {
		n, err := io.ReadFull(x, buffers[0][:])
		m, errY := io.ReadFull(y, buffers[1][:])
		if !bytes.Equal(buffers[0][:n], buffers[1][:m]) || err != errY {
			return fmt.Errorf("%s is not what was pushed", b)
		}
		if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
