// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

type inner struct {
	Digest string `json:"digest"`
}

type doc struct {
	inner
	Version     int               `json:"version"`
	Items       []inner           `json:"items,omitempty"`
	Pointer     *inner            `json:"pointer,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Raw         json.RawMessage   `json:"raw,omitempty"`
}

func TestUnmarshalRefusesDocumentsThatReadTwoWays(t *testing.T) {
	for name, in := range map[string]string{
		"repeated key":            `{"version":1,"version":2}`,
		"repeated nested key":     `{"items":[{"digest":"a","digest":"b"}]}`,
		"repeated key in raw":     `{"raw":{"a":1,"a":2}}`,
		"case variant":            `{"version":1,"Version":2}`,
		"wrong case":              `{"Version":1}`,
		"wrong case nested":       `{"pointer":{"DIGEST":"a"}}`,
		"unknown field":           `{"version":1,"extra":true}`,
		"unknown nested":          `{"items":[{"digest":"a","x":1}]}`,
		"repeated map key":        `{"annotations":{"a":"1","a":"2"}}`,
		"null":                    `{"version":null}`,
		"null element":            `{"items":[null]}`,
		"lone high surrogate":     `{"digest":"\ud800"}`,
		"lone low surrogate":      `{"digest":"x\udc00"}`,
		"swapped surrogates":      `{"digest":"\udc00\ud800"}`,
		"surrogate then escape":   `{"digest":"\ud800\n"}`,
		"surrogate in a key":      `{"annotations":{"\ud800":"1"}}`,
		"negative zero":           `{"version":-0}`,
		"trailing value":          `{"version":1}{}`,
		"trailing bracket":        `{"version":1}]`,
		"not UTF-8":               "{\"version\":1,\"digest\":\"\xff\"}",
		"deep nesting":            `{"raw":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`,
		"truncated":               `{"version":1`,
		"empty":                   ``,
		"number where an object":  `{"pointer":3}`,
		"over the size":           `{"version":1,"digest":"` + strings.Repeat("x", 5000) + `"}`,
		"unicode fold of a field": "{\"ver\u017fion\":1}",
	} {
		var d doc
		if err := strictjson.Unmarshal([]byte(in), &d, 4096); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("%s: got %v, want ErrSyntax", name, err)
		}
	}
}

func TestUnmarshalAcceptsWhatItNames(t *testing.T) {
	var d doc
	in := `{"version":3,"digest":"d","items":[{"digest":"a"}],"pointer":{"digest":"p"},"annotations":{"k":"1","K":"2"},"raw":{"any":[1]}}` + "\n"
	if err := strictjson.Unmarshal([]byte(in), &d, 4096); err != nil {
		t.Fatal(err)
	}
	if err := strictjson.Unmarshal([]byte(`{"version":1,"digest":"\ud83d\ude00\\ud800"}`), new(doc), 4096); err != nil {
		t.Errorf("a pair of surrogates and an escaped backslash: %v", err)
	}
	if d.Version != 3 || d.Digest != "d" || d.Items[0].Digest != "a" || d.Pointer.Digest != "p" || d.Annotations["K"] != "2" {
		t.Errorf("got %+v", d)
	}
}

func TestUnmarshalLenientIgnoresOnlyTrulyUnknownFields(t *testing.T) {
	var d doc
	if err := strictjson.UnmarshalLenient([]byte(`{"version":1,"later":{"x":1}}`), &d, 4096); err != nil {
		t.Error(err)
	}
	for _, in := range []string{`{"Version":1}`, `{"later":1,"later":2}`, "{\"ver\u017fion\":1}"} {
		if err := strictjson.UnmarshalLenient([]byte(in), &d, 4096); !errors.Is(err, strictjson.ErrSyntax) {
			t.Errorf("%s: got %v, want ErrSyntax", in, err)
		}
	}
}

// FuzzUnmarshal holds the package to its promise: what it accepts decodes the
// same after a round trip, so no second reading of the document exists.
func FuzzUnmarshal(f *testing.F) {
	for _, s := range []string{`{"version":1}`, `{"items":[{"digest":"a"}]}`, `{"a":1,"A":2}`, `[[[]]]`, `{"raw":{"x":[1,2,{"y":true}]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var a, b doc
		if strictjson.Unmarshal(in, &a, 1<<16) != nil {
			return
		}
		out, err := json.Marshal(a)
		if err != nil {
			t.Fatalf("accepted %q, cannot marshal: %v", in, err)
		}
		if err := strictjson.Unmarshal(out, &b, 1<<17); err != nil {
			t.Fatalf("accepted %q, refused its own form %q: %v", in, out, err)
		}
	})
}
