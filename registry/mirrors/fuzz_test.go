// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors_test

import (
	"os"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/registry/mirrors"
)

var blob = ocispec.Descriptor{Digest: "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Size: 10}

func FuzzContainers(f *testing.F) {
	b, err := os.ReadFile(conf)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, "registry.example.com/team/model")
	f.Add([]byte("[[registry]]\nprefix='*.example.com/a'\n"), "b.example.com/a/c")
	f.Fuzz(func(t *testing.T, b []byte, name string) { mirrors.ContainersForTest(b, name) })
}

func FuzzContainerd(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(certs, "*", "hosts.toml"))
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { mirrors.ContainerdForTest(b) })
}
