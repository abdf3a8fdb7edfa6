// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gguf

import "github.com/modelsec/modelsec-go/internal/tensor"

// Types of metadata that are not of one size.
const (
	kindUint32 = 4
	kindString = 8
	kindArray  = 9
)

// widths are the bytes of a value of metadata by its type; 0 where they vary.
var widths = [...]int64{1, 1, 2, 2, 4, 4, 4, 1, kindString: 0, kindArray: 0, 8, 8, 8}

type dataType struct {
	name  string
	block tensor.Block
}

// types are those of ggml.h by their number. Numbers that are missing were
// removed; 9, which is made while computing and never stored, has two sizes in
// circulation.
var types = map[uint32]dataType{
	0:  {"F32", tensor.Block{Elements: 1, Bytes: 4}},
	1:  {"F16", tensor.Block{Elements: 1, Bytes: 2}},
	2:  {"Q4_0", tensor.Block{Elements: 32, Bytes: 18}},
	3:  {"Q4_1", tensor.Block{Elements: 32, Bytes: 20}},
	6:  {"Q5_0", tensor.Block{Elements: 32, Bytes: 22}},
	7:  {"Q5_1", tensor.Block{Elements: 32, Bytes: 24}},
	8:  {"Q8_0", tensor.Block{Elements: 32, Bytes: 34}},
	10: {"Q2_K", tensor.Block{Elements: 256, Bytes: 84}},
	11: {"Q3_K", tensor.Block{Elements: 256, Bytes: 110}},
	12: {"Q4_K", tensor.Block{Elements: 256, Bytes: 144}},
	13: {"Q5_K", tensor.Block{Elements: 256, Bytes: 176}},
	14: {"Q6_K", tensor.Block{Elements: 256, Bytes: 210}},
	15: {"Q8_K", tensor.Block{Elements: 256, Bytes: 292}},
	16: {"IQ2_XXS", tensor.Block{Elements: 256, Bytes: 66}},
	17: {"IQ2_XS", tensor.Block{Elements: 256, Bytes: 74}},
	18: {"IQ3_XXS", tensor.Block{Elements: 256, Bytes: 98}},
	19: {"IQ1_S", tensor.Block{Elements: 256, Bytes: 50}},
	20: {"IQ4_NL", tensor.Block{Elements: 32, Bytes: 18}},
	21: {"IQ3_S", tensor.Block{Elements: 256, Bytes: 110}},
	22: {"IQ2_S", tensor.Block{Elements: 256, Bytes: 82}},
	23: {"IQ4_XS", tensor.Block{Elements: 256, Bytes: 136}},
	24: {"I8", tensor.Block{Elements: 1, Bytes: 1}},
	25: {"I16", tensor.Block{Elements: 1, Bytes: 2}},
	26: {"I32", tensor.Block{Elements: 1, Bytes: 4}},
	27: {"I64", tensor.Block{Elements: 1, Bytes: 8}},
	28: {"F64", tensor.Block{Elements: 1, Bytes: 8}},
	29: {"IQ1_M", tensor.Block{Elements: 256, Bytes: 56}},
	30: {"BF16", tensor.Block{Elements: 1, Bytes: 2}},
	34: {"TQ1_0", tensor.Block{Elements: 256, Bytes: 54}},
	35: {"TQ2_0", tensor.Block{Elements: 256, Bytes: 66}},
	39: {"MXFP4", tensor.Block{Elements: 32, Bytes: 17}},
	40: {"NVFP4", tensor.Block{Elements: 64, Bytes: 36}},
	41: {"Q1_0", tensor.Block{Elements: 128, Bytes: 18}},
}
