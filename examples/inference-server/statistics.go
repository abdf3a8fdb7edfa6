// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"math"
)

// statistics say of a tensor what tells a loaded one from a broken one at a
// glance. Minimum, Maximum, Mean and Deviation are over the finite elements.
type statistics struct {
	Elements  int     `json:"elements"`
	NaN       int     `json:"nan"`
	Infinite  int     `json:"infinite"`
	Minimum   float64 `json:"min"`
	Maximum   float64 `json:"max"`
	Mean      float64 `json:"mean"`
	Deviation float64 `json:"std"`
}

// element is how elements of a type are read.
type element struct {
	size int
	read func([]byte) float64
}

var elements = map[string]element{
	"F64": {8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }},
	"F32": {4, func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) }},
	"F16": {2, func(b []byte) float64 { return half(binary.LittleEndian.Uint16(b)) }},
	"BF16": {2, func(b []byte) float64 {
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	}},
	"I64":  {8, func(b []byte) float64 { return float64(int64(binary.LittleEndian.Uint64(b))) }},
	"I32":  {4, func(b []byte) float64 { return float64(int32(binary.LittleEndian.Uint32(b))) }},
	"I16":  {2, func(b []byte) float64 { return float64(int16(binary.LittleEndian.Uint16(b))) }},
	"I8":   {1, func(b []byte) float64 { return float64(int8(b[0])) }},
	"U8":   {1, func(b []byte) float64 { return float64(b[0]) }},
	"BOOL": {1, func(b []byte) float64 { return float64(b[0]) }},
}

// half is an IEEE 754 binary16.
func half(bits uint16) float64 {
	sign, exponent, fraction := 1.0, int(bits>>10&0x1f), float64(bits&0x3ff)
	if bits>>15 == 1 {
		sign = -1
	}
	switch {
	case exponent == 0x1f && fraction != 0:
		return math.NaN()
	case exponent == 0x1f:
		return math.Inf(int(sign))
	case exponent == 0:
		return sign * math.Ldexp(fraction, -24)
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

func summarise(dtype string, data []byte) (statistics, error) {
	e, ok := elements[dtype]
	if !ok {
		return statistics{}, fmt.Errorf("no statistics over elements of type %s", dtype)
	}
	var s statistics
	var squares float64 // of distances from the mean so far (Welford)
	finite := 0
	for ; len(data) >= e.size; data = data[e.size:] {
		s.Elements++
		v := e.read(data)
		switch {
		case math.IsNaN(v):
			s.NaN++
			continue
		case math.IsInf(v, 0):
			s.Infinite++
			continue
		}
		if finite++; finite == 1 {
			s.Minimum, s.Maximum = v, v
		}
		s.Minimum, s.Maximum = min(s.Minimum, v), max(s.Maximum, v)
		delta := v - s.Mean
		s.Mean += delta / float64(finite)
		squares += delta * (v - s.Mean)
	}
	if finite > 0 {
		s.Deviation = math.Sqrt(squares / float64(finite))
	}
	return s, nil
}
