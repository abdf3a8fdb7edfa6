// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"bytes"
	"crypto/fips140"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/opencontainers/go-digest"
)

// vector is a file of testdata/vectors; testdata/README.md has the format.
type vector struct {
	t      *testing.T
	header map[string][]string
	body   string
}

// eachVector runs f on every vector of a set and compares what it returns with
// the vector's expect line.
func eachVector(t *testing.T, set string, least int, f func(v vector) string) {
	files, err := filepath.Glob(filepath.Join("testdata/vectors", set, "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < least {
		t.Fatalf("%d vectors, want at least %d", len(files), least)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			v := readVector(t, file)
			if got, want := f(v), v.get("expect"); got != want {
				t.Errorf("%s: got %q, want %q", v.get("comment"), got, want)
			}
		})
	}
}

func readVector(t *testing.T, file string) vector {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := strings.Cut(string(text), "\n\n")
	if !ok {
		t.Fatalf("%s: no empty line", file)
	}
	v := vector{t: t, header: make(map[string][]string), body: body}
	for line := range strings.Lines(head) {
		k, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok {
			t.Fatalf("%s: header line %q", file, line)
		}
		v.header[k] = append(v.header[k], value)
	}
	return v
}

func (v vector) get(key string) string {
	v.t.Helper()
	if len(v.header[key]) != 1 {
		v.t.Fatalf("%d header lines %q", len(v.header[key]), key)
	}
	return v.header[key][0]
}

func (v vector) hex(key string) []byte {
	v.t.Helper()
	b, err := hex.DecodeString(v.get(key))
	if err != nil {
		v.t.Fatal(err)
	}
	return b
}

func (v vector) number(key string) int64 {
	v.t.Helper()
	n, err := strconv.ParseInt(v.get(key), 10, 64)
	if err != nil {
		v.t.Fatal(err)
	}
	return n
}

// stored concatenates the pieces that the stored lines name.
func (v vector) stored() []byte {
	v.t.Helper()
	var out []byte
	for _, line := range v.header["stored"] {
		if digits, ok := strings.CutPrefix(line, "hex "); ok {
			b, err := hex.DecodeString(digits)
			if err != nil {
				v.t.Fatal(err)
			}
			out = append(out, b...)
			continue
		}
		var name string
		var from, n int
		if _, err := fmt.Sscanf(line, "%s %d %d", &name, &from, &n); err != nil {
			v.t.Fatalf("%q: %v", line, err)
		}
		b, err := os.ReadFile(filepath.Join("testdata/vectors/part", name))
		if err != nil {
			v.t.Fatal(err)
		}
		out = append(out, b[from:from+n]...)
	}
	return out
}

func TestPartVectors(t *testing.T) {
	eachVector(t, "part", 35, func(v vector) string {
		key := encrypt.KeyFrom(v.hex("dek"))
		defer key.Close()
		p := encrypt.Part{
			ArtifactID: [16]byte(v.hex("artifact-id")), Layer: uint32(v.number("layer")),
			Length: v.number("length"), SegmentSize: int(v.number("segment-size")),
		}
		o, err := encrypt.NewPartOpener(key, p, v.hex("header"))
		switch {
		case errors.Is(err, encrypt.ErrDecrypt):
			return "header failure"
		case err != nil:
			return "geometry failure"
		}
		stored, n := v.stored(), p.Segments()
		if int64(len(stored)) != p.Length+n*encrypt.SegmentOverhead {
			// Whoever cuts such a layer into segments anyway gets no further.
			last := min(int64(len(stored)), (n-1)*int64(p.SegmentSize+encrypt.SegmentOverhead))
			if _, err := o.OpenSegment(nil, n-1, stored[last:]); err == nil || errors.Is(err, encrypt.ErrDecrypt) {
				v.t.Errorf("final segment of another length: error %v", err)
			}
			return "length failure"
		}
		var plain []byte
		for k := range n {
			from := k * int64(p.SegmentSize+encrypt.SegmentOverhead)
			to := min(from+int64(p.SegmentSize+encrypt.SegmentOverhead), int64(len(stored)))
			if plain, err = o.OpenSegment(plain, k, stored[from:to]); errors.Is(err, encrypt.ErrDecrypt) {
				return "segment failure"
			} else if err != nil {
				v.t.Fatal(err)
			}
		}
		for i, c := range plain {
			if c != byte(i%251) {
				v.t.Fatalf("byte %d is %d", i, c)
			}
		}
		return "success"
	})
}

func TestGrantVectors(t *testing.T) {
	eachVector(t, "grant", 80, func(v vector) string {
		clock, err := time.Parse(time.RFC3339, v.get("now"))
		if err != nil {
			v.t.Fatal(err)
		}
		b := encrypt.Binding{
			ArtifactID: [16]byte(v.hex("artifact-id")), Commitment: [32]byte(v.hex("commitment")), Manifest: digest.Digest(v.get("manifest")),
		}
		id, err := encrypt.IdentityFrom(v.get("identity-type"), v.hex("identity"))
		if err != nil {
			v.t.Fatal(err)
		}
		g, err := encrypt.ParseGrant([]byte(v.body))
		if err != nil {
			return "format failure"
		}
		if !g.Matches(b) {
			return "other artifact"
		}
		if v.header["scope"] != nil {
			return v.unwrapFiles(g, b, clock, id)
		}
		key, err := encrypt.UnwrapKey(v.t.Context(), g.Recipients, b, clock, id)
		if err != nil {
			return grantFailure(err)
		}
		defer key.Close()
		if err := key.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
			v.t.Error(err)
		}
		return "success"
	})
}

func (v vector) unwrapFiles(g *encrypt.Grant, b encrypt.Binding, clock time.Time, id encrypt.Identity) string {
	files, err := unwrapFiles(v.t, g.Recipients, b, clock, id)
	if err != nil {
		return grantFailure(err)
	}
	defer files.Close()
	if got := string(files.Files()); got != v.get("files") {
		v.t.Errorf("files %s", got)
	}
	var keys []string
	for _, l := range files.Layers() {
		k, err := encrypt.LayerKey(files, b.ArtifactID, l)
		if err != nil {
			v.t.Error(err)
		}
		keys = append(keys, fmt.Sprintf("%d %x", l, k))
	}
	if got, want := strings.Join(keys, ", "), strings.Join(v.header["layer-key"], ", "); got != want {
		v.t.Errorf("layer keys %s, want %s", got, want)
	}
	return "success"
}

// grantFailure is the word that the vectors have for an error.
func grantFailure(err error) string {
	for _, c := range []struct {
		err  error
		word string
	}{
		{encrypt.ErrFileList, "format failure"}, {encrypt.ErrExpired, "expired"}, {encrypt.ErrKeyMismatch, "key mismatch"}, {encrypt.ErrDecrypt, "decrypt failure"}, {encrypt.ErrNoKey, "no key"},
	} {
		if errors.Is(err, c.err) {
			return c.word
		}
	}
	return err.Error()
}

func TestKeyFileVectors(t *testing.T) {
	eachVector(t, "keyfile", 18, func(v vector) string {
		if strings.Contains(v.body, "MODELSEC RECIPIENT") {
			r, err := encrypt.ParseRecipient(v.body)
			if err != nil {
				return "format failure"
			}
			if r.PEM() != v.body {
				v.t.Errorf("encodes as %s", r.PEM())
			}
			return "success"
		}
		var id *encrypt.HPKEIdentity
		var err error
		if v.header["passphrase"] == nil {
			id, err = encrypt.ParseIdentity(v.body)
		} else {
			id, err = encrypt.ParseEncryptedIdentity(v.body, []byte(v.get("passphrase")))
		}
		switch {
		case errors.Is(err, encrypt.ErrFIPS) && fips140.Enforced():
			return v.get("expect") // the typed refusal is the whole test here
		case errors.Is(err, encrypt.ErrDecrypt):
			return "decrypt failure"
		case err != nil:
			return "format failure"
		}
		want, err := encrypt.IdentityFrom(id.Recipient().Type(), v.hex("private"))
		if err != nil || want.PEM() != id.PEM() {
			v.t.Errorf("another private key (error %v)", err)
		}
		return "success"
	})
}

func FuzzParseGrant(f *testing.F) {
	files, err := filepath.Glob("testdata/vectors/grant/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, doc, _ := bytes.Cut(text, []byte("\n\n"))
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		g, err := encrypt.ParseGrant(doc)
		if err != nil {
			return
		}
		again, err := g.Encode()
		if err != nil {
			t.Fatalf("parsed and does not encode: %v", err)
		}
		back, err := encrypt.ParseGrant(again)
		if err != nil || fmt.Sprint(back) != fmt.Sprint(g) {
			t.Errorf("reads back as another document (error %v)", err)
		}
	})
}
