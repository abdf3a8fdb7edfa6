// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/modelsec"
)

// TestOneTensorOfManyCostsLittle: 1 MiB out of an encrypted artifact of 16 GiB,
// of which only what must be fetched is real.
func TestOneTensorOfManyCostsLittle(t *testing.T) {
	const mib = 1 << 20
	var list []weights
	for i := range 32 {
		list = append(list, weights{fmt.Sprintf("layer.%d.before", i), []int64{128, mib}}, weights{fmt.Sprintf("layer.%d.norm", i), []int64{mib / 2}}, weights{fmt.Sprintf("layer.%d.after", i), []int64{127, mib}}, weights{fmt.Sprintf("layer.%d.rest", i), []int64{mib / 2}})
	}
	file := tensorFileOf("model.safetensors", list...)
	if file.size < 16<<30 {
		t.Fatalf("the file has %d bytes", file.size)
	}
	p := newParty(t)
	from := int64(0) // of the tensor
	s := &sparse{by: p, profile: index.Encrypted, segmentSize: mib, files: []sparseFile{file}}
	s.real = func(_ int, offset int64) bool {
		return offset == 0 || from > 0 && offset > from-mib && offset < from+mib
	}
	// Where the tensor lies is in the header, which is real.
	m := must(p.client(s.push(t)).Open(t.Context(), tagged, p.policy()))
	norm := tensorNamed(t, m, "layer.17.norm")
	m.Close()
	from = norm.Offset

	for name, read := range map[string]func(t *testing.T, m *modelsec.Model) []byte{
		"LoadTensors": func(t *testing.T, m *modelsec.Model) (b []byte) {
			err := m.LoadTensors(t.Context(), []modelsec.Tensor{tensorNamed(t, m, "layer.17.norm")}, modelsec.TensorSink{Alloc: func(t modelsec.Tensor) ([]byte, error) {
				b = make([]byte, t.Size)
				return b, nil
			}})
			if err != nil {
				t.Fatal(err)
			}
			return b
		},
		"ReaderAt": func(t *testing.T, m *modelsec.Model) []byte {
			x := tensorNamed(t, m, "layer.17.norm")
			r := must(m.ReaderAt(t.Context(), x.File))
			b := make([]byte, x.Size)
			if _, err := io.ReadFull(io.NewSectionReader(r, x.Offset, x.Size), b); err != nil {
				t.Fatal(err)
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := must(p.client(s.push(t)).Open(t.Context(), tagged, p.policy()))
			defer m.Close()
			s.take()
			got := read(t, m)
			want := make([]byte, mib)
			pattern(want, from)
			if !bytes.Equal(got, want) {
				t.Error("the tensor differs")
			}
			segments := 0
			requests := s.take()
			for _, a := range requests {
				segments += len(a.segments(t))
			}
			if len(requests) > 4 || segments > 3 {
				t.Errorf("%d requests for %d segments, want at most 4 and 3", len(requests), segments)
			}
		})
	}
}
