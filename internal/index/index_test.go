// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/index"
)

const segment = 64 << 10

func layer(c string, size int64) index.Layer {
	return index.Layer{Digest: digest.Digest("sha256:" + strings.Repeat(c, 64)), Size: size}
}

// plain is a small valid header: a file of two segments in two layers, and a
// packed layer with gaps, two files and an empty one. It has 4 segments.
func plain() index.Header {
	return index.Header{
		FormatVersion: 1, Profile: index.Plain, SegmentSize: segment,
		Layers: []index.Layer{layer("a", segment+1), layer("b", 7), layer("c", 3000)},
		Files: []index.File{
			{Path: "big.safetensors", Role: "weight", Size: segment + 8, Runs: []index.Run{{0, 0, 0, segment + 1}, {segment + 1, 1, 0, 7}}},
			{Path: "conf/a.json", Role: "code", Size: 10, Runs: []index.Run{{0, 2, 512, 10}}},
			{Path: "conf/b.json", Role: "code", Size: 20, Runs: []index.Run{{0, 2, 1536, 20}}},
			{Path: "conf/empty", Role: "code", Size: 0, Runs: []index.Run{{0, 2, 3000, 0}}},
		},
	}
}

// sealed is a small valid header of the encrypted profile: a layer of one full
// segment, one of a segment and a byte, and an empty one. It has 4 segments.
func sealed() index.Header {
	header := strings.Repeat("0a", index.SealHeader)
	return index.Header{
		FormatVersion: 1, Profile: index.Encrypted, SegmentSize: segment,
		Layers: []index.Layer{layer("a", 74+32+segment), layer("b", 74+64+segment+1), layer("c", 74+32)},
		Encryption: &index.Encryption{
			ArtifactID: strings.Repeat("1", 32), Commitment: strings.Repeat("2", 64), MinWrapClass: "post-quantum",
			Headers: []string{header, header, header}, Sealed: bytes.Repeat([]byte{3}, 28),
		},
	}
}

const segments = 4

func digests() []byte {
	b := make([]byte, 32*segments)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// frame puts a header in front of digests.
func frame(header string, digests []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), digests...)
}

func TestParseIsTheInverseOfEncode(t *testing.T) {
	for name, h := range map[string]index.Header{"plain": plain(), "encrypted": sealed()} {
		x, err := index.New(h, digests())
		if err != nil {
			t.Fatal(name, err)
		}
		b, err := x.Encode()
		if err != nil {
			t.Fatal(name, err)
		}
		if want := frame(marshal(t, h), digests()); !bytes.Equal(b, want) {
			t.Errorf("%s: encoded as %q, want %q", name, b, want)
		}
		y, err := index.Parse(b)
		if err != nil {
			t.Fatal(name, err)
		}
		if !reflect.DeepEqual(y.Header, h) {
			t.Errorf("%s: got %+v, want %+v", name, y.Header, h)
		}
		if y.Segments() != segments {
			t.Errorf("%s: %d segments, want %d", name, y.Segments(), segments)
		}
	}
}

func TestDigestAndOrdinalCountOverAllLayers(t *testing.T) {
	x, err := index.New(plain(), digests())
	if err != nil {
		t.Fatal(err)
	}
	n := int64(0)
	for i := range x.Layers {
		for k := range x.Geometry(i).Count() {
			if got := x.Ordinal(i, k); got != n {
				t.Errorf("segment %d of layer %d has number %d, want %d", k, i, got, n)
			}
			d := x.Digest(i, k)
			if !bytes.Equal(d, digests()[32*n:32*n+32]) || cap(d) != 32 {
				t.Errorf("segment %d of layer %d has digest %x with room for %d", k, i, d, cap(d))
			}
			n++
		}
	}
	if n != segments {
		t.Errorf("%d segments, want %d", n, segments)
	}
}

func TestAnEmptyRunLiesBesideOtherRuns(t *testing.T) {
	for _, at := range []int64{0, 512, 522, 1536, 1556, 3000} {
		h := plain()
		h.Files[3].Runs[0].LayerOffset = at
		if _, err := index.New(h, digests()); err != nil {
			t.Errorf("at %d: %v", at, err)
		}
	}
}

func TestParseSealedHoldsTheFilesToTheGeometry(t *testing.T) {
	h := sealed()
	x, err := index.New(h, digests())
	if err != nil {
		t.Fatal(err)
	}
	valid := `{"files":[{"path":"a","role":"weight","size":131073,"runs":[[0,0,0,65536],[65536,1,0,65537]]},` +
		`{"path":"b","role":"doc","size":0,"runs":[[0,2,0,0]]}]}`
	files, err := x.ParseSealed([]byte(valid))
	if err != nil || len(files) != 2 || files[0].Runs[1] != (index.Run{FileOffset: 65536, Layer: 1, Length: 65537}) {
		t.Errorf("got %+v, %v", files, err)
	}
	for name, in := range map[string]string{
		"nothing":            ``,
		"no files":           `{"files":[]}`,
		"no member":          `{}`,
		"unknown member":     strings.Replace(valid, `{"files"`, `{"x":1,"files"`, 1),
		"repeated member":    strings.Replace(valid, `{"files"`, `{"files":[],"files"`, 1),
		"data after it":      valid + `{}`,
		"path that is bad":   strings.Replace(valid, `"a"`, `"../a"`, 1),
		"file without size":  strings.Replace(valid, `"size":0,`, ``, 1),
		"stored length":      strings.Replace(valid, `[65536,1,0,65537]`, `[65536,1,0,65675]`, 1),
		"layer that is not":  strings.Replace(valid, `[0,2,0,0]`, `[0,3,0,0]`, 1),
		"layer without file": strings.Replace(valid, `[0,2,0,0]`, `[0,0,0,0]`, 1),
		"over 16 MiB":        valid + strings.Repeat(" ", 16<<20),
	} {
		if files, err := x.ParseSealed([]byte(in)); files != nil || !errors.Is(err, index.ErrFormat) {
			t.Errorf("%s: got %v, %v, want ErrFormat", name, files, err)
		}
	}
}

// TestParseRefusesEveryHeaderThatBreaksARule changes one thing in a header
// that is valid without the change. The message must say what is wrong, so
// that no case fails for another reason than its own.
func TestParseRefusesEveryHeaderThatBreaksARule(t *testing.T) {
	run := `"runs":[[0,2,512,10]]`
	file := `{"path":"conf/a.json","role":"code","size":10,` + run + `}`
	id, commitment, floe := strings.Repeat("1", 32), strings.Repeat("2", 64), strings.Repeat("0a", 74)
	for name, c := range map[string]struct {
		of       index.Header
		old, new string
		want     string
	}{
		"version 0":                   {plain(), `"formatVersion":1`, `"formatVersion":0`, "version 0"},
		"version 2":                   {plain(), `"formatVersion":1`, `"formatVersion":2`, "version 2"},
		"version that is text":        {plain(), `"formatVersion":1`, `"formatVersion":"1"`, "formatVersion"},
		"version that is missing":     {plain(), `"formatVersion":1,`, ``, "version 0"},
		"profile of another name":     {plain(), `"plain"`, `"Plain"`, "profile"},
		"segment size of another":     {plain(), `:65536,"layers"`, `:65537,"layers"`, "segment size"},
		"segment size 0":              {plain(), `:65536,"layers"`, `:0,"layers"`, "segment size"},
		"negative segment size":       {plain(), `:65536,"layers"`, `:-65536,"layers"`, "segment size"},
		"unknown member":              {plain(), `{"formatVersion"`, `{"x":1,"formatVersion"`, "unknown field"},
		"unknown member of a file":    {plain(), run, run + `,"x":1`, "unknown field"},
		"unknown member of a layer":   {plain(), `"size":7}`, `"size":7,"urls":[]}`, "unknown field"},
		"repeated member":             {plain(), `"formatVersion":1`, `"formatVersion":1,"formatVersion":1`, "twice"},
		"repeated member of a file":   {plain(), run, run + `,` + run, "twice"},
		"member in another case":      {plain(), `"profile"`, `"Profile"`, "unknown field"},
		"null":                        {plain(), run, `"runs":null`, "null"},
		"data after the header":       {plain(), `"runs":[[0,2,3000,0]]}]}`, `"runs":[[0,2,3000,0]]}]}{}`, "after the document"},
		"header that is a list":       {plain(), marshal(t, plain()), `[]`, "JSON"},
		"header that is not UTF-8":    {plain(), `conf/empty`, "conf/\xff", "UTF-8"},
		"no layers":                   {plain(), marshal(t, plain().Layers), `[]`, "0 layers"},
		"digest of another algorithm": {plain(), `"sha256:aaaa`, `"sha512:aaaa`, "digest"},
		"digest in upper case":        {plain(), `"sha256:aaaa`, `"sha256:AAAA`, "digest"},
		"digest that is short":        {plain(), `"sha256:aaaa`, `"sha256:aaa`, "digest"},
		"digest that is long":         {plain(), `"sha256:aaaa`, `"sha256:aaaaa`, "digest"},
		"layer without digest":        {plain(), `"digest":"sha256:` + strings.Repeat("b", 64) + `",`, ``, "digest"},
		"layer without size":          {plain(), `,"size":7}`, `}`, "without size"},
		"layer of negative size":      {plain(), `"size":7}`, `"size":-7}`, "-7"},
		"layer of negative zero":      {plain(), `"size":7}`, `"size":-0}`, "-0"},
		"layer over 2^50":             {plain(), `"size":7}`, `"size":1125899906842625}`, "1125899906842625"},
		"layer of 2^63":               {plain(), `"size":7}`, `"size":9223372036854775808}`, "9223372036854775808"},
		"size with a fraction":        {plain(), `"size":7}`, `"size":7.0}`, "7.0"},
		"size with an exponent":       {plain(), `"size":7}`, `"size":7e0}`, "7e0"},
		"a segment too many":          {plain(), `"size":3000}`, `"size":65537}`, "want 160"},
		"a segment too few":           {plain(), `"size":65537}`, `"size":65536}`, "want 96"},
		"no files":                    {plain(), marshal(t, plain().Files), `[]`, "0 files"},
		"files that are missing":      {plain(), `,"files":` + marshal(t, plain().Files), ``, "0 files"},
		"encryption in plain":         {plain(), `"files":[`, `"encryption":{"artifactId":"","commitment":"","minWrapClass":"","headers":[],"sealed":""},"files":[`, "encryption in the plain"},
		"role of another name":        {plain(), `"role":"weight"`, `"role":"weights"`, "role"},
		"role that is missing":        {plain(), `"role":"weight",`, ``, "role"},
		"path that is missing":        {plain(), `"path":"conf/empty",`, ``, "path of 0"},
		"path that is refused":        {plain(), `"conf/empty"`, `"../empty"`, "clean relative"},
		"path twice":                  {plain(), `"conf/empty"`, `"CONF/a.json"`, "one file"},
		"path of a directory":         {plain(), `"conf/empty"`, `"conf"`, "directory of"},
		"file without size":           {plain(), `"size":0,`, ``, "without size"},
		"file of negative size":       {plain(), `"size":10,`, `"size":-10,`, "-10"},
		"file larger than its runs":   {plain(), `"size":10,`, `"size":11,`, "cover 10 of 11"},
		"file smaller than its runs":  {plain(), `"size":10,`, `"size":9,`, "10 bytes at 0 of 9"},
		"file without runs":           {plain(), run, `"runs":[]`, "cover 0 of 10"},
		"empty file without runs":     {plain(), `"runs":[[0,2,3000,0]]`, `"runs":[]`, "one empty run"},
		"empty file of two runs":      {plain(), `"runs":[[0,2,3000,0]]`, `"runs":[[0,2,3000,0],[0,2,3000,0]]`, "one empty run"},
		"empty file with a byte":      {plain(), `"runs":[[0,2,3000,0]]`, `"runs":[[0,2,2999,1]]`, "one empty run"},
		"empty file not at 0":         {plain(), `"runs":[[0,2,3000,0]]`, `"runs":[[1,2,3000,0]]`, "run at 1"},
		"empty run outside the layer": {plain(), `"runs":[[0,2,3000,0]]`, `"runs":[[0,2,3001,0]]`, "3001 of layer"},
		"empty run inside another":    {plain(), `"runs":[[0,2,3000,0]]`, `"runs":[[0,2,515,0]]`, "overlap"},
		"empty run beside another":    {plain(), run, `"runs":[[0,2,512,10],[10,2,522,0]]`, "0 bytes at 10"},
		"run of three numbers":        {plain(), run, `"runs":[[0,2,512]]`, "3 numbers"},
		"run of five numbers":         {plain(), run, `"runs":[[0,2,512,10,0]]`, "5 numbers"},
		"run that is an object":       {plain(), run, `"runs":[{"Layer":2}]`, "JSON"},
		"run with null":               {plain(), run, `"runs":[[null,2,512,10]]`, "null"},
		"run with text":               {plain(), run, `"runs":[["0",2,512,10]]`, "string"},
		"run with a fraction":         {plain(), run, `"runs":[[0.0,2,512,10]]`, "0.0"},
		"run with negative zero":      {plain(), run, `"runs":[[-0,2,512,10]]`, "-0"},
		"run with a negative layer":   {plain(), run, `"runs":[[0,-1,512,10]]`, "-1"},
		"run with a negative offset":  {plain(), run, `"runs":[[0,2,-1,10]]`, "-1"},
		"run with a negative length":  {plain(), run, `"runs":[[0,2,512,-10]]`, "-10"},
		"run in a layer that is not":  {plain(), run, `"runs":[[0,3,512,10]]`, "layer 3 of 3"},
		"run in layer 2^32+2":         {plain(), run, `"runs":[[0,4294967298,512,10]]`, "out of bounds"},
		"run past the end":            {plain(), run, `"runs":[[0,2,2991,10]]`, "2991 of layer 2"},
		"run that wraps at 2^63":      {plain(), run, `"runs":[[0,2,9223372036854775807,10]]`, "of layer 2"},
		"run of 2^63 bytes":           {plain(), run, `"runs":[[0,2,512,9223372036854775808]]`, "out of bounds"},
		"run of 2^64 bytes":           {plain(), run, `"runs":[[0,2,512,18446744073709551616]]`, "18446744073709551616"},
		"run not at 0":                {plain(), run, `"runs":[[1,2,512,10]]`, "run at 1"},
		"runs with a hole":            {plain(), run, `"runs":[[0,2,512,5],[6,2,517,4]]`, "run at 6"},
		"runs that overlap in a file": {plain(), run, `"runs":[[0,2,512,6],[5,2,518,5]]`, "run at 5"},
		"runs out of order":           {plain(), run, `"runs":[[5,2,517,5],[0,2,512,5]]`, "run at 5"},
		"runs that overlap":           {plain(), run, `"runs":[[0,2,1527,10]]`, "overlap at 1536"},
		"runs over the same bytes":    {plain(), run, `"runs":[[0,2,1536,10]]`, "overlap at 1536"},
		"layer without runs":          {plain(), `[65537,1,0,7]`, `[65537,2,0,7]`, "layer 1 belongs to no file"},
		"file twice":                  {plain(), file, file + `,` + file, "one file"},

		"files in the clear":          {sealed(), `"encryption":`, `"files":[],"encryption":`, "clear file list"},
		"no encryption":               {sealed(), `,"encryption":` + marshal(t, sealed().Encryption), ``, "no encryption section"},
		"encrypted layer of 105":      {sealed(), `"size":106}`, `"size":105}`, "size 105"},
		"artifactId that is short":    {sealed(), id, id[2:], "artifactId"},
		"artifactId in upper case":    {sealed(), id, "A" + id[1:], "artifactId"},
		"artifactId that is missing":  {sealed(), `"artifactId":"` + id + `",`, ``, "artifactId"},
		"commitment that is short":    {sealed(), commitment, commitment[2:], "commitment"},
		"commitment that is not hex":  {sealed(), commitment, "g" + commitment[1:], "commitment"},
		"wrap class of another name":  {sealed(), `"post-quantum"`, `"quantum"`, "minWrapClass"},
		"wrap class that is missing":  {sealed(), `"minWrapClass":"post-quantum",`, ``, "minWrapClass"},
		"a FLOE header too few":       {sealed(), `"` + floe + `",`, ``, "2 FLOE headers for 3"},
		"a FLOE header too many":      {sealed(), `"` + floe + `",`, `"` + floe + `","` + floe + `",`, "4 FLOE headers for 3"},
		"a FLOE header that is short": {sealed(), floe, floe[2:], "FLOE header of layer 0"},
		"sealed without a byte":       {sealed(), `"sealed":"AwMD`, `"sealed":"`, "sealed section of 25"},
		"sealed that is not base64":   {sealed(), `"sealed":"AwMD`, `"sealed":"AwM*`, "base64"},
		"sealed without padding":      {sealed(), `Aw=="`, `Aw"`, "base64"},
		"sealed with a line end":      {sealed(), `"sealed":"AwMD`, `"sealed":"AwMD\n`, "line ends"},
		"sealed with unused bits":     {sealed(), `Aw=="`, `Ax=="`, "base64"},
		"unknown encryption member":   {sealed(), `"sealed":`, `"x":1,"sealed":`, "unknown field"},
	} {
		t.Run(name, func(t *testing.T) {
			valid := marshal(t, c.of)
			if _, err := index.Parse(frame(valid, digests())); err != nil {
				t.Fatalf("without the defect: %v", err)
			}
			if !strings.Contains(valid, c.old) {
				t.Fatalf("%q does not hold %q", valid, c.old)
			}
			x, err := index.Parse(frame(strings.Replace(valid, c.old, c.new, 1), digests()))
			if x != nil || !errors.Is(err, index.ErrFormat) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v, want an error about %q", x, err, c.want)
			}
		})
	}
}
