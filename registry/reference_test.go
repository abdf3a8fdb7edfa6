// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/registry"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func TestParseReferenceTakes(t *testing.T) {
	for in, want := range map[string]registry.Reference{
		"registry.example.com/team/llama":                        {Name: "registry.example.com/team/llama"},
		"registry.example.com/team/llama:v3":                     {Name: "registry.example.com/team/llama", Tag: "v3"},
		"registry.example.com/team/llama@" + someDigest:          {Name: "registry.example.com/team/llama", Digest: someDigest},
		"registry.example.com:5000/llama:v3.1_a-b@" + someDigest: {Name: "registry.example.com:5000/llama", Tag: "v3.1_a-b", Digest: someDigest},
		"localhost/llama":                                        {Name: "localhost/llama"},
		"registry:5000/a/b/c":                                    {Name: "registry:5000/a/b/c"},
		"127.0.0.1:5000/llama:x":                                 {Name: "127.0.0.1:5000/llama", Tag: "x"},
		"[::1]:5000/llama":                                       {Name: "[::1]:5000/llama"},
		"[2001:db8::1]/llama":                                    {Name: "[2001:db8::1]/llama"},
		"a.b/c__d/e-f/g.h":                                       {Name: "a.b/c__d/e-f/g.h"},
		"oci:models":                                             {Name: "oci:models"},
		"oci:models:v1":                                          {Name: "oci:models", Tag: "v1"},
		"oci:/srv/models@" + someDigest:                          {Name: "oci:/srv/models", Digest: someDigest},
		"oci:/srv/a:b/models:v1":                                 {Name: "oci:/srv/a:b/models", Tag: "v1"},
		"oci:/srv/a@b/models":                                    {Name: "oci:/srv/a@b/models"},
		`oci:C:\models:v1`:                                       {Name: `oci:C:\models`, Tag: "v1"},
		"oci:../llama 2:v1":                                      {Name: "oci:../llama 2", Tag: "v1"},
	} {
		got, err := registry.ParseReference(in)
		if err != nil || got != want {
			t.Errorf("ParseReference(%q) = %+v, %v; want %+v", in, got, err, want)
		}
		if got.String() != in {
			t.Errorf("String() = %q, want %q", got.String(), in)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for in, want := range map[string]string{
		"":                                               "host/path",
		"llama":                                          "host/path",
		"llama:v3":                                       "host/path",
		"library/llama":                                  "no default registry",
		"team/llama:v3":                                  "no default registry",
		"registry.example.com":                           "host/path",
		"registry.example.com/":                          "path",
		"registry.example.com//llama":                    "path",
		"registry.example.com/Team/llama":                "lower-case",
		"Registry.example.com/llama":                     "lower-case",
		"registry.example.com/llama:":                    "tag",
		"registry.example.com/llama:-x":                  "tag",
		"registry.example.com/llama:a b":                 "tag",
		"registry.example.com/llama@":                    "sha256",
		"registry.example.com/llama@x":                   "sha256",
		"registry.example.com/../llama":                  "path",
		"registry.example.com/a/../b":                    "path",
		"registry.example.com/llama?x=y":                 "path",
		"registry.example.com/llama#x":                   "path",
		"registry.example.com/llama%2f":                  "path",
		"user@registry.example.com/llama":                "lower-case",
		"https://registry.example.com/a":                 "port",
		"registry.example.com:0/llama":                   "port",
		"registry.example.com:65536/llama":               "port",
		"registry.example.com:05/llama":                  "port",
		"registry.example.com:/llama":                    "port",
		"registry..com/llama":                            "lower-case",
		"-a.com/llama":                                   "lower-case",
		"[::1/llama":                                     "",
		"[::1%25eth0]/llama":                             "IPv6",
		"[0:0::1]/llama":                                 "shortest",
		"oci:":                                           "directory",
		"oci::v1":                                        "directory",
		"oci:a\x00b":                                     "control",
		"oci:a@b":                                        "sha256",
		"oci:models:":                                    "tag",
		"oci:models:a b":                                 "tag",
		"a.b/c@" + strings.ToUpper(someDigest):           "sha256",
		"a.b/c@" + digest.SHA512.FromString("").String(): "sha256",
		"a.b/c@" + someDigest[:70]:                       "sha256",
		"a.b/c@" + someDigest + "0":                      "sha256",
		"a.b/c@" + strings.Replace(someDigest, "e3b0c", "E3B0C", 1): "lower-case",
		"a.b/" + strings.Repeat("a", 300):                           "limit",
		"a.b/c:" + strings.Repeat("a", 129):                         "tag",
	} {
		got, err := registry.ParseReference(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseReference(%q) = %+v, %v; want an error with %q", in, got, err, want)
		}
		if got != (registry.Reference{}) {
			t.Errorf("ParseReference(%q) returned %+v with its error", in, got)
		}
	}
}

func TestOpenTakesNamesOnly(t *testing.T) {
	for _, name := range []string{"a.b/c:v1", "a.b/c@" + someDigest, "oci:dir:v1", "c", "", "oci:"} {
		if _, err := new(registry.Client).Open(t.Context(), name); err == nil {
			t.Errorf("Open(%q) succeeded", name)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"a.b/c:v1@" + someDigest, "localhost:5000/a", "oci:a:b:c", `oci:C:\a:b`, "oci:a@" + someDigest, "[::1]:1/a", "a/b", "oci:a/b@c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := registry.ParseReference(s)
		if err != nil {
			return
		}
		if ref.String() != s {
			t.Fatalf("String of %q is %q", s, ref.String())
		}
		name, err := registry.ParseReference(ref.Name)
		if err != nil || name != (registry.Reference{Name: ref.Name}) {
			t.Fatalf("the name %q of %q parses as %+v, %v", ref.Name, s, name, err)
		}
		if _, err := new(registry.Client).Open(t.Context(), ref.Name); err != nil {
			t.Fatalf("Open(%q): %v", ref.Name, err)
		}
	})
}
