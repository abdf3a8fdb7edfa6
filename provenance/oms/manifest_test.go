// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
)

// withChain replaces the key hint of a bundle by a chain.
func withChain(t *testing.T, b *provenance.Bundle, chain []*x509.Certificate) *provenance.Bundle {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	var list []any
	for _, c := range chain {
		list = append(list, map[string]any{"rawBytes": c.Raw})
	}
	doc["verificationMaterial"] = map[string]any{"x509CertificateChain": map[string]any{"certificates": list}}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, text)
}

func sum(content string) string {
	d := sha256.Sum256([]byte(content))
	return hex.EncodeToString(d[:])
}

type resource struct{ name, algorithm, digest string }

// statement is a valid one of resources, with a subject to match.
func statement(serialization string, resources ...resource) string {
	h := sha256.New()
	var list []string
	for _, r := range resources {
		raw, _ := hex.DecodeString(r.digest)
		h.Write(raw)
		list = append(list, fmt.Sprintf(`{"name":%q,"algorithm":%q,"digest":%q}`, r.name, r.algorithm, r.digest))
	}
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":"%x"}}],`+
		`"predicateType":"https://model_signing/signature/v1.0","predicate":{"resources":[%s],"serialization":{%s}}}`,
		h.Sum(nil), strings.Join(list, ","), serialization)
}

const (
	files  = `"method":"files","hash_type":"sha256","allow_symlinks":false`
	shards = `"method":"shards","hash_type":"sha256","allow_symlinks":false,"shard_size":4`
)

// valid are statements that other tools may write.
var valid = map[string]string{
	"files":                     statement(files, resource{"a", "sha256", sum("a")}, resource{"b/c", "sha256", sum("c")}),
	"in another order":          statement(files, resource{"b", "sha256", sum("b")}, resource{"a", "sha256", sum("a")}),
	"a single file of v1.0.0":   statement(files, resource{".", "sha256", sum("a")}),
	"ignored paths":             statement(files+`,"ignore_paths":[".git","x[1].txt"]`, resource{"a", "sha256", sum("a")}),
	"names that differ in case": statement(files, resource{"A", "sha256", sum("a")}, resource{"a", "sha256", sum("a")}),
	"members of in-toto":        strings.Replace(statement(files, resource{"a", "sha256", sum("a")}), `{"name":"a"`, `{"mediaType":"x/y","name":"a"`, 1),
	"shards":                    statement(shards, resource{"a:0:4", "sha256", sum("0123")}, resource{"a:4:5", "sha256", sum("4")}),
	"shards of the reference":   statement(shards, resource{"a:0:4", "sha256-sharded-4", sum("0123")}, resource{"a:4:8", "sha256-sharded-4", sum("4567")}),
	"size of the reference":     strings.Replace(statement(shards, resource{"a:0:4", "sha256-sharded-4", sum("0123")}), `"shard_size":4`, `"shard_size":4.0`, 1),
	"shards of a: b":            statement(shards, resource{"a: b:0:4", "sha256", sum("0123")}, resource{"c:1:2:0:1", "sha256", sum("4")}),
	"shards by code point":      statement(shards, resource{"a:0:4", "sha256", sum("0")}, resource{"a:12:16", "sha256", sum("3")}, resource{"a:4:8", "sha256", sum("1")}, resource{"a:8:12", "sha256", sum("2")}),
}

// one is the statement that the edits below start from.
var one = statement(files, resource{"a", "sha256", sum("a")})

func edit(from, to string) string { return strings.Replace(one, from, to, 1) }

// refused have one defect each, with the reason for which they are refused.
var refused = map[string][2]string{
	"no JSON":                  {"{", "statement"},
	"another statement type":   {edit("Statement/v1", "Statement/v2"), "statement type"},
	"another predicate":        {edit("signature/v1.0", "signature/v2.0"), "predicate type"},
	"version 0.2":              {edit("signature/v1.0", "Digests/v0.1"), "predicate type"},
	"no predicate":             {edit(`"predicate":{`, `"other":{`), "predicate"},
	"no name":                  {edit(`"name":"m"`, `"name":""`), "no name"},
	"two subjects":             {edit(`"subject":[`, `"subject":[{"name":"x","digest":{"sha256":"`+sum("x")+`"}},`), "more than 1 subject"},
	"another root":             {edit(`"subject":[{"name":"m","digest":{"sha256":"`, `"subject":[{"name":"m","digest":{"sha256":"`+sum("x")+`"}}],"x":[{"y":{"z":"`), "the resources have"},
	"no resources":             {statement(files), "no resources"},
	"unknown member":           {edit(`"serialization"`, `"exclude":["a"],"serialization"`), `unknown field "exclude"`},
	"unknown serialization":    {edit(`"method"`, `"salt":"x","method"`), `unknown field "salt"`},
	"repeated member":          {edit(`"method"`, `"method":"files","method"`), "appears twice"},
	"repeated name":            {edit(`{"name":"a"`, `{"name":"b","name":"a"`), "appears twice"},
	"another method":           {edit(`"files"`, `"tensors"`), `method "tensors"`},
	"BLAKE2b":                  {edit(`"hash_type":"sha256"`, `"hash_type":"blake2b"`), `hash type "blake2b"`},
	"BLAKE3":                   {edit(`"hash_type":"sha256"`, `"hash_type":"blake3"`), `hash type "blake3"`},
	"no rule for links":        {edit(`,"allow_symlinks":false`, ``), "allow_symlinks is missing"},
	"size of no shards":        {edit(`"method":"files"`, `"method":"files","shard_size":4`), "shard_size"},
	"shards without a size":    {edit(`"method":"files"`, `"method":"shards"`), "shard_size"},
	"shards of nothing":        {edit(`"method":"files"`, `"method":"shards","shard_size":0`), "shard_size"},
	"half a byte":              {edit(`"method":"files"`, `"method":"shards","shard_size":4.5`), "shard_size"},
	"shards larger than files": {edit(`"method":"files"`, `"method":"shards","shard_size":1e16`), "shard_size"},
	"size in words":            {edit(`"method":"files"`, `"method":"shards","shard_size":"4"`), "predicate"},
	"negative shards":          {edit(`"method":"files"`, `"method":"shards","shard_size":-4`), "shard_size"},
	"ignored outside":          {edit(`"method"`, `"ignore_paths":["../x"],"method"`), "ignore_paths"},
	"ignored everything":       {edit(`"method"`, `"ignore_paths":["."],"method"`), "ignore_paths"},
	"another algorithm":        {edit(`"algorithm":"sha256"`, `"algorithm":"sha512"`), `algorithm "sha512"`},
	"shard of a whole file":    {edit(`"algorithm":"sha256"`, `"algorithm":"sha256-sharded-0"`), `algorithm "sha256-sharded-0"`},
	"shard of another size":    {statement(shards, resource{"a:0:4", "sha256-sharded-5", sum("a")}), `algorithm "sha256-sharded-5"`},
	"short digest":             {edit(`"digest":"`+sum("a"), `"digest":"`+sum("a")[2:]), "digest"},
	"digest in capitals":       {edit(`"digest":"`+sum("a"), `"digest":"`+strings.ToUpper(sum("a"))), "digest"},
	"path too long":            {edit(`{"name":"a"`, `{"name":"`+strings.Repeat("a/", 2048)+`a"`), "path of 4097 bytes"},
	"parent":                   {edit(`{"name":"a"`, `{"name":"../a"`), "no path below"},
	"absolute":                 {edit(`{"name":"a"`, `{"name":"/a"`), "no path below"},
	"dot":                      {edit(`{"name":"a"`, `{"name":"./a"`), "no path below"},
	"trailing slash":           {edit(`{"name":"a"`, `{"name":"a/"`), "no path below"},
	"empty name":               {edit(`{"name":"a"`, `{"name":""`), "no path below"},
	"twice":                    {statement(files, resource{"a", "sha256", sum("a")}, resource{"a", "sha256", sum("b")}), "listed twice"},
	"single file and others":   {statement(files, resource{".", "sha256", sum("a")}, resource{"a", "sha256", sum("b")}), "there are others"},
	"others before it":         {statement(files, resource{"-", "sha256", sum("a")}, resource{".", "sha256", sum("b")}), "there are others"},
	"shard without a range":    {statement(shards, resource{"a", "sha256", sum("a")}), "path:start:end"},
	"shard without a start":    {statement(shards, resource{"a:4", "sha256", sum("a")}), "path:start:end"},
	"shard in hexadecimal":     {statement(shards, resource{"a:0:0x4", "sha256", sum("a")}), "path:start:end"},
	"shard with a zero":        {statement(shards, resource{"a:0:04", "sha256", sum("a")}), "path:start:end"},
	"shard before the file":    {statement(shards, resource{"a:-4:4", "sha256", sum("a")}), "path:start:end"},
	"shard without a file":     {statement(shards, resource{":0:4", "sha256", sum("a")}), "no path below"},
	"shard that is empty":      {statement(shards, resource{"a:0:0", "sha256", sum("")}), "shard from 0 to 0"},
	"shard too large":          {statement(shards, resource{"a:0:5", "sha256", sum("a")}), "shard from 0 to 5"},
	"shard too small":          {statement(shards, resource{"a:0:3", "sha256", sum("a")}, resource{"a:3:7", "sha256", sum("a")}), "shard from 0 to 3"},
	"first shard missing":      {statement(shards, resource{"a:4:8", "sha256", sum("a")}), "no shard at 0"},
	"shard missing":            {statement(shards, resource{"a:0:4", "sha256", sum("a")}, resource{"a:8:12", "sha256", sum("a")}), "end at 4 and start at 8"},
	"shard twice":              {statement(shards, resource{"a:0:4", "sha256", sum("a")}, resource{"a:0:4", "sha256", sum("b")}), "end at 4 and start at 0"},
}

func TestParseManifestTakesWhatOthersWrite(t *testing.T) {
	for name, text := range valid {
		if _, err := oms.ParseManifest([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseManifestRefusesEachDefect(t *testing.T) {
	for name, c := range refused {
		if _, err := oms.ParseManifest([]byte(c[0])); !errors.Is(err, provenance.ErrFormat) || !strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: got %v, want %q", name, err, c[1])
		}
	}
}

func TestShardsVerify(t *testing.T) {
	key := newKey(t, elliptic.P256())
	v := provenance.KeyVerifier(key.Public())
	b, err := keySigner(t, key).Sign(t.Context(), provenance.PayloadType, []byte(statement(shards,
		resource{"a:0:4", "sha256", sum("0123")}, resource{"a:4:5", "sha256", sum("4")}, resource{"b:0:4", "sha256", sum("0123")})))
	if err != nil {
		t.Fatal(err)
	}
	fine := func() fstest.MapFS {
		return fstest.MapFS{"a": {Data: []byte("01234")}, "b": {Data: []byte("0123")}, "__init__.py": {}}
	}
	got, err := oms.Verify(t.Context(), v, b, fine(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// Shards have no empty files, so nothing can be said about one.
	if !slices.Equal(got.Unsigned, []string{"__init__.py"}) {
		t.Errorf("unsigned %q, want the empty file", got.Unsigned)
	}
	for what, content := range map[string]string{"": "a", "0123": "a", "01235": "a", "012345": "a", "01234567": "a", "x1234": "a", "01234 ": "b"} {
		m := fine()
		m[content].Data = []byte(what)
		var mismatch *oms.MismatchError
		if _, err := oms.Verify(t.Context(), v, b, m, nil); !errors.As(err, &mismatch) || !slices.Equal(mismatch.Changed, []string{content}) {
			t.Errorf("%s with %q: got %v, want it as changed", content, what, err)
		}
	}
}

// FuzzParseManifest: what is accepted lists each path once, in ranges that a
// file can have, and reads the same again.
func FuzzParseManifest(f *testing.F) {
	for _, text := range valid {
		f.Add([]byte(text))
	}
	for _, c := range refused {
		f.Add([]byte(c[0]))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := oms.ParseManifest(in)
		if err != nil {
			if !errors.Is(err, provenance.ErrFormat) || m != nil && len(m.Resources) == 0 {
				t.Fatalf("got %+v, %v", m, err)
			}
			return
		}
		seen := make(map[oms.Resource]bool)
		for _, r := range m.Resources {
			if r.Start < 0 || r.End < r.Start || r.End-r.Start > m.ShardSize || r.Path == "" || strings.HasPrefix(r.Path, "/") || slices.Contains(strings.Split(r.Path, "/"), "..") {
				t.Fatalf("accepted %+v", r)
			}
			at := oms.Resource{Path: r.Path, Start: r.Start}
			if seen[at] {
				t.Fatalf("accepted %q at %d twice", r.Path, r.Start)
			}
			seen[at] = true
		}
		if again, err := oms.ParseManifest(in); err != nil || !reflect.DeepEqual(m, again) {
			t.Fatal("reads in two ways")
		}
	})
}
