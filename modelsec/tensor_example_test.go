// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"fmt"
	"log"
	"strings"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// share cuts a tensor as tensor parallelism does: matrices whose output is
// summed over the ranks by columns, other matrices by rows, and vectors not at
// all. The layout is the application's; Slice is all that it needs.
func share(t modelsec.Tensor, rank, ranks int64) (modelsec.Tensor, error) {
	if len(t.Shape) != 2 {
		return t, nil
	}
	dim := 0
	for _, summed := range []string{"o_proj.weight", "down_proj.weight"} {
		if strings.HasSuffix(t.Name, summed) {
			dim = 1
		}
	}
	n := t.Shape[dim]
	return t.Slice(dim, rank*n/ranks, (rank+1)*n/ranks)
}

// Rank 1 of 2 loads its share of a model.
func ExampleTensor_Slice() {
	m := sharded()
	defer m.Close()
	tensors, err := m.Tensors(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for i, t := range tensors {
		if tensors[i], err = share(t, 1, 2); err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Name, t.Shape, "of which", tensors[i].Shape)
	}
	requests, bytes, err := m.Cost(ctx, tensors)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(requests, "request for", bytes, "bytes")
	// Output:
	// mlp.up_proj.weight [8 4] of which [4 4]
	// mlp.down_proj.weight [4 8] of which [4 4]
	// norm.weight [4] of which [4]
	// 1 request for 288 bytes
}

// A server loads all tensors of a model into memory of its own.
func ExampleModel_LoadTensors() {
	m := sharded()
	defer m.Close()
	loaded := make(map[string][]byte)
	err := m.LoadTensors(ctx, nil, modelsec.TensorSink{Alloc: func(t modelsec.Tensor) ([]byte, error) {
		loaded[t.Name] = make([]byte, t.Size)
		return loaded[t.Name], nil
	}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(loaded), "tensors,", len(loaded["norm.weight"]), "bytes of norm.weight")
	// Output: 3 tensors, 4 bytes of norm.weight
}

// sharded publishes a small model and opens it.
func sharded() *modelsec.Model {
	signer, err := provenance.KeySigner(key)
	if err != nil {
		log.Fatal(err)
	}
	identity, err := encrypt.GenerateIdentity("")
	if err != nil {
		log.Fatal(err)
	}
	c := &modelsec.Client{Registry: registry.NewMemory(), Identities: []encrypt.Identity{identity}}
	src := model(map[string][]byte{"model.safetensors": tensorFile(1, weights{"mlp.up_proj.weight", []int64{8, 4}}, weights{"mlp.down_proj.weight", []int64{4, 8}}, weights{"norm.weight", []int64{4}})})
	if _, err = c.Push(ctx, tagged, src, &modelsec.PushOptions{Signer: signer}); err != nil {
		log.Fatal(err)
	}
	m, err := c.Open(ctx, tagged, policy)
	if err != nil {
		log.Fatal(err)
	}
	return m
}
