// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package tensortest has tensor files, good and malformed, that every reader of
// this module and the readers of others are held to.
package tensortest

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Case is one file.
type Case struct {
	Name string
	File []byte

	// Valid: every reader takes the file.
	Valid bool

	// Stricter says why we refuse a file that the reference reader in Python
	// takes. Empty: it refuses the file too, or Valid.
	Stricter string
}

// Safetensors frames a header and n bytes of data that count up.
func Safetensors(header string, n int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range n {
		b = append(b, byte(i))
	}
	return b
}

// Entry is what a header says of one tensor.
func Entry(name, dtype, shape string, from, to int) string {
	return fmt.Sprintf(`%q:{"dtype":%q,"shape":[%s],"data_offsets":[%d,%d]}`, name, dtype, shape, from, to)
}

const twoTensors = `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}`

// SafetensorsCases are files of that format.
func SafetensorsCases() []Case {
	cases := append(validSafetensors(), malformedSafetensors()...)
	cases = append(cases, stricterSafetensors()...)
	whole := Safetensors(twoTensors, 32)
	for n := 0; n < len(whole); n += 3 {
		cases = append(cases, Case{Name: fmt.Sprintf("cut after %d bytes", n), File: whole[:n]})
	}
	return cases
}

func validSafetensors() []Case {
	var cases []Case
	ok := func(name, header string, data int) {
		cases = append(cases, Case{Name: name, File: Safetensors(header, data), Valid: true})
	}
	ok("no tensors", `{}`, 0)
	ok("only metadata", `{"__metadata__":{"format":"pt","note":"\u00e9 \ud83d\ude00 \"\\\/\b\f\n\r\t"}}`, 0)
	ok("two tensors", twoTensors, 32)
	ok("padded", twoTensors+"     ", 32)
	ok("rank 0", "{"+Entry("s", "I64", "", 0, 8)+"}", 8)
	ok("empty tensor", "{"+Entry("e", "F32", "0,7", 0, 0)+"}", 0)
	ok("empty tensors around a full one", "{"+Entry("e", "F32", "0", 0, 0)+","+Entry("f", "U8", "2", 0, 2)+","+Entry("g", "U8", "3,0", 2, 2)+"}", 2)
	ok("entries out of order", "{"+Entry("z", "U8", "3", 4, 7)+","+Entry("y", "I32", "1", 0, 4)+"}", 7)
	ok("members out of order", `{"a":{"data_offsets":[0,2],"shape":[2],"dtype":"I8"}}`, 2)
	ok("white space", "{ \"a\" :\n{ \"dtype\"\t:\"U8\" , \"shape\":[ 2 , 1 ],\r\"data_offsets\": [0 ,2] } }", 2)
	ok("escaped name", `{"\u0061\ud83d\ude00":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)
	ok("name of many bytes", "{"+Entry(strings.Repeat("layer.", 2000), "U8", "1", 0, 1)+"}", 1)
	ok("nested names", "{"+Entry("model.layers.0.attn.q.weight", "F16", "4,4", 0, 32)+"}", 32)
	offset, entries := 0, []string(nil)
	for i, t := range []struct {
		dtype       string
		count, size int
	}{{"BOOL", 3, 3}, {"U8", 3, 3}, {"I8", 2, 2}, {"F8_E5M2", 1, 1}, {"F8_E4M3", 1, 1}, {"F8_E8M0", 2, 2}, {"F8_E4M3FNUZ", 1, 1}, {"F8_E5M2FNUZ", 1, 1},
		{"F4", 4, 2}, {"F6_E2M3", 4, 3}, {"F6_E3M2", 8, 6}, {"I16", 1, 2}, {"U16", 1, 2}, {"F16", 1, 2}, {"BF16", 1, 2},
		{"I32", 1, 4}, {"U32", 1, 4}, {"F32", 1, 4}, {"C64", 1, 8}, {"F64", 1, 8}, {"I64", 1, 8}, {"U64", 1, 8}} {
		entries = append(entries, Entry(fmt.Sprintf("t%d", i), t.dtype, fmt.Sprint(t.count), offset, offset+t.size))
		offset += t.size
	}
	ok("every type", "{"+strings.Join(entries, ",")+"}", offset)
	return cases
}

func malformedSafetensors() []Case {
	var cases []Case
	bad := func(name, header string, data int) {
		cases = append(cases, Case{Name: name, File: Safetensors(header, data)})
	}
	raw := func(name string, b []byte) { cases = append(cases, Case{Name: name, File: b}) }
	length := func(n uint64, rest string) []byte { return append(binary.LittleEndian.AppendUint64(nil, n), rest...) }
	raw("header over the limit", length(100_000_001, "{}"))
	raw("header longer than the file", length(3, "{}"))
	raw("header of 2^63", length(1<<63, "{}"))
	raw("header of 2^64-1", length(1<<64-1, "{}"))
	raw("header of no bytes", length(0, ""))
	raw("header cut short", length(1, "{}"))
	for i, h := range []string{
		``, `[]`, `[{}]`, `"a"`, `1`, `null`, `{`, `}`, `{}}`, `{},`, `{}{}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1}`, `{"a":null}`, `{"a":"b"}`, `{"a":{}}`,
		`{a:{}}`, `{'a':{}}`, `{1:{}}`, `{"__metadata__":1}`, `{"__metadata__":[]}`, `{"__metadata__":"x"}`, `{"__metadata__":{"a":1}}`,
		`{"__metadata__":{"a":null}}`, `{"__metadata__":{"a":{}}}`, `{"__metadata__":{"a":"b",}}`, `{"__metadata__":{"a":"b"},}`, `{"__metadata__":{},"__metadata__":{}}`,
		"{}\x00", "\x00{}", "{\x00}", `{"__metadata__":{"a":"` + "\x01" + `"}}`, `{"__metadata__":{"a":"` + "\n" + `"}}`, `{"__metadata__":{"a":"\x"}}`,
		`{"__metadata__":{"a":"\ud800"}}`, `{"__metadata__":{"a":"\udc00\ud800"}}`, `{"__metadata__":{"a":"\ud800\u0061"}}`, `{"__metadata__":{"a":"\u12"}}`, `{"__metadata__":{"a":"b}}`,
		"{\"__metadata__\":{\"a\":\"\xff\"}}", "{\"__metadata__\":{\"a\":\"\xc3\"}}", "{\"__metadata__\":{\"a\":\"\xc0\xaf\"}}", "{\"__metadata__\":{\"a\":\"\xed\xa0\x80\"}}", "{\"__metadata__\":{\"a\":\"\xf4\x90\x80\x80\"}}",
		"\xef\xbb\xbf{}", "// x\n{}", `{/**/}`, `{} x`, `{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`,
	} {
		bad(fmt.Sprintf("JSON %d", i), h, 0)
	}
	for i, e := range []string{
		`{"dtype":"U8","shape":[1]}`, `{"dtype":"U8","data_offsets":[0,1]}`, `{"shape":[1],"data_offsets":[0,1]}`,
		`{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}`,
		`{"dtype":8,"shape":[1],"data_offsets":[0,1]}`, `{"dtype":null,"shape":[1],"data_offsets":[0,1]}`, `{"dtype":["U8"],"shape":[1],"data_offsets":[0,1]}`,
		`{"dtype":"u8","shape":[1],"data_offsets":[0,1]}`, `{"dtype":"U4","shape":[2],"data_offsets":[0,1]}`, `{"dtype":"","shape":[1],"data_offsets":[0,1]}`, `{"dtype":"F8_E4M3FN","shape":[1],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":1,"data_offsets":[0,1]}`, `{"dtype":"U8","shape":null,"data_offsets":[0,1]}`, `{"dtype":"U8","shape":"1","data_offsets":[0,1]}`, `{"dtype":"U8","shape":{},"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[[1]],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}`, `{"dtype":"U8","shape":[01],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[+1],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[1,],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":[1 1],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[null],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[true],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[0x1],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":[1],"data_offsets":[0]}`, `{"dtype":"U8","shape":[1],"data_offsets":[]}`, `{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}`, `{"dtype":"U8","shape":[1],"data_offsets":{"0":0,"1":1}}`, `{"dtype":"U8","shape":[1],"data_offsets":null}`,
		`{"dtype":"U8","shape":[1],"data_offsets":[1,0]}`, `{"dtype":"U8","shape":[1],"data_offsets":[-1,0]}`, `{"dtype":"U8","shape":[1],"data_offsets":[0.0,1]}`, `{"dtype":"U8","shape":[1],"data_offsets":["0","1"]}`,
		`{"dtype":"U8","shape":[1],"data_offsets":[1,2]}`, `{"dtype":"U8","shape":[2],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[0],"data_offsets":[0,1]}`, `{"dtype":"F32","shape":[1],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":[2],"data_offsets":[0,2]}`, `{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[18446744073709551616],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,1]}`, `{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,1]}`,
		`{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551615]}`, `{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,0]}`, `{"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,9223372036854775807]}`,
		`{"dtype":"F4","shape":[1],"data_offsets":[0,1]}`, `{"dtype":"F6_E2M3","shape":[2],"data_offsets":[0,1]}`, `{"dtype":"U8","shape":[1],"data_offsets":[0,1]`, `{"dtype":"U8""shape":[1],"data_offsets":[0,1]}`,
	} {
		bad(fmt.Sprintf("entry %d", i), `{"a":`+e+`}`, 1)
	}
	bad("hole", "{"+Entry("a", "U8", "1", 0, 1)+","+Entry("b", "U8", "1", 2, 3)+"}", 3)
	bad("hole at the start", "{"+Entry("a", "U8", "1", 1, 2)+"}", 2)
	bad("overlap", "{"+Entry("a", "U8", "2", 0, 2)+","+Entry("b", "U8", "2", 1, 3)+"}", 3)
	bad("two tensors in one place", "{"+Entry("a", "U8", "2", 0, 2)+","+Entry("b", "U8", "2", 0, 2)+"}", 2)
	bad("empty tensor inside another", "{"+Entry("a", "U8", "2", 0, 2)+","+Entry("b", "U8", "0", 1, 1)+"}", 2)
	bad("trailing byte", twoTensors, 33)
	bad("missing byte", twoTensors, 31)
	bad("data without tensors", `{}`, 1)
	bad("polyglot", `{}`, 4096)
	return cases
}

func stricterSafetensors() []Case {
	var cases []Case
	strict := func(name, header string, data int, why string) {
		cases = append(cases, Case{Name: name, File: Safetensors(header, data), Stricter: why})
	}
	one := Entry("a", "U8", "1", 0, 1)
	const twice = "the text of the format disallows duplicate keys, and readers differ about which one counts"
	strict("tensor twice", "{"+one+","+one+"}", 1, twice)
	strict("tensor twice, escaped", "{"+one+`,"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1, twice)
	strict("tensor twice in two places", "{"+one+","+Entry("a", "I8", "1", 0, 1)+"}", 1, twice)
	strict("metadata key twice", `{"__metadata__":{"a":"b","a":"c"}}`, 0, twice)
	strict("space before the header", ` {}`, 0, "the header begins with a brace")
	strict("line feed after the header", "{}\n", 0, "the header is padded with spaces")
	strict("tab after the header", "{}\t", 0, "the header is padded with spaces")
	strict("metadata null", `{"__metadata__":null}`, 0, "__metadata__ is an object of strings")
	strict("unknown member", `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"extra":1}}`, 1, "an entry has three members")
	strict("array for an entry", `{"a":["U8",[1],[0,1]]}`, 1, "an entry is an object")
	strict("object for a type", `{"a":{"dtype":{"U8":null},"shape":[1],"data_offsets":[0,1]}}`, 1, "a type is a string")
	strict("dimension over 2^63", "{"+Entry("a", "U8", "18446744073709551615,0", 0, 0)+"}", 0, "offsets and sizes are signed in most languages")
	strict("more than 64 dimensions", "{"+Entry("a", "U8", "1"+strings.Repeat(",1", 64), 0, 1)+"}", 1, "bounded memory")
	strict("name over 64 KiB", "{"+Entry(strings.Repeat("n", 64<<10+1), "U8", "1", 0, 1)+"}", 1, "bounded memory")
	return cases
}
