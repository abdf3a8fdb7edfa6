// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package safetensors

import (
	"fmt"
	"io"

	"github.com/modelsec/modelsec-go/internal/tensor"
)

// ReadIndex reads a model.safetensors.index.json and calls entry for every
// tensor of its weight_map with the file that is said to hold it. It keeps
// nothing: the file is the word of whoever wrote it, to be compared with the
// headers. Entries may repeat; what entry returns ends the reading.
func ReadIndex(r io.Reader, entry func(name, file string) error) error {
	s := newScanner(r)
	if err := s.expect('{'); err != nil {
		return err
	}
	found := false
	err := s.object(func(key string) error {
		first := s.token()
		if key != "weight_map" {
			return s.skip(first, 0)
		}
		if found {
			return s.fault("weight_map occurs twice")
		}
		if found = true; first != '{' {
			return s.fault("weight_map begins with %q, want an object", first)
		}
		return s.object(func(name string) error {
			file, err := s.text(s.token())
			if err != nil {
				return err
			}
			return entry(name, file)
		})
	})
	if err != nil {
		return err
	}
	if s.token(); !s.ended {
		return s.fault("data after the index")
	}
	if !found && s.err == nil {
		return fmt.Errorf("%w: an index without a weight_map", tensor.ErrFormat)
	}
	return s.err
}
