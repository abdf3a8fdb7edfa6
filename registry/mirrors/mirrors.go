// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package mirrors reads the mirrors and certificates of registries from the
// files that other programs already have: registries.conf of podman, buildah,
// skopeo and CRI-O, hosts.toml of containerd, and the directories certs.d of
// Docker and podman.
//
//	hosts, err := mirrors.Containers("/etc/containers/registries.conf", ref.Name)
//	client := &registry.Client{Hosts: hosts}
//
// The first two hold patterns, so the caller names what it is going to
// open. What a file allows and this library does not, above all connections
// without verified certificates, is an error and never ignored. Files are read
// once: a change needs a new Client.
package mirrors

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/modelsec/modelsec-go/registry"
)

// maxFile is far above any configuration that a person wrote.
const maxFile = 1 << 20

// readFile reads a file of bounded length.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxFile)
	}
	return b, nil
}

// decode reads TOML and returns the keys in the order of the file, and those
// that v has no place for.
func decode(b []byte, v any) (keys, unknown []toml.Key, err error) {
	if len(b) > maxFile {
		return nil, nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	meta, err := toml.Decode(string(b), v)
	if err != nil {
		var parse toml.ParseError
		if errors.As(err, &parse) {
			return nil, nil, fmt.Errorf("line %d: %s", parse.Position.Line, parse.Message)
		}
		return nil, nil, err
	}
	return meta.Keys(), meta.Undecoded(), nil
}

// split takes a name apart into host and path, which may be empty.
func split(name string) (host, path string, err error) {
	host, path, ok := strings.Cut(name, "/")
	probe := name
	if !ok {
		probe = name + "/x"
	}
	ref, err := registry.ParseReference(probe)
	if err != nil {
		return "", "", err
	}
	if ref.Name != probe || strings.HasPrefix(probe, "oci:") {
		return "", "", fmt.Errorf("%q is not the name of a host or repository", name)
	}
	return host, path, nil
}

// absent reports whether an error only says that a file is not there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// sameMirrors compares what two names of one host were found to have.
func sameMirrors(a, b []registry.Mirror) bool {
	return slices.EqualFunc(a, b, func(a, b registry.Mirror) bool {
		return a.URL == b.URL && a.Resolve == b.Resolve && a.Namespace == b.Namespace && a.Under == b.Under
	})
}
