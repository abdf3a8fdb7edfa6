// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// weights are one version of the model, whole and verified. They do not change.
type weights struct {
	digest  digest.Digest
	bytes   int64
	took    time.Duration
	order   []modelsec.Tensor
	tensors map[string]*resident
}

// resident is a tensor in memory.
type resident struct {
	modelsec.Tensor
	data []byte
}

// load opens what ref names under the policy and loads every tensor of it.
func load(ctx context.Context, c *modelsec.Client, ref string, policy provenance.Policy) (w *weights, err error) {
	start := time.Now()
	m, err := c.Open(ctx, ref, policy)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	list, err := m.Tensors(ctx)
	if err != nil {
		return nil, err
	}
	w = &weights{digest: m.Descriptor().Digest, order: list, tensors: make(map[string]*resident, len(list))}
	for _, t := range list {
		if w.tensors[t.Name] != nil {
			return nil, fmt.Errorf("%s: two files have a tensor %q", w.digest, t.Name)
		}
		w.tensors[t.Name] = &resident{Tensor: t}
	}
	err = m.LoadTensors(ctx, list, modelsec.TensorSink{Alloc: func(t modelsec.Tensor) ([]byte, error) {
		b := make([]byte, t.Size)
		w.tensors[t.Name].data = b
		w.bytes += t.Size
		return b, nil
	}})
	if err != nil {
		return nil, err
	}
	w.took = time.Since(start)
	return w, nil
}
