// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Modelsec-helper-age is the key helper for age: it makes age1… recipients and
// age:FILE, a file with one identity, work wherever a program takes the URI of a
// key. The file may hold an SSH private key; an SSH public key is written
// helper:age:ssh-ed25519 AAAA…. Plugins of age are found in PATH, and have nobody
// to ask: a PIN or passphrase must come from their own configuration.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/modelsec/modelsec-go/encrypt/age"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

func main() { keyhelper.Main(open) }

// maxFile is more than a file with one identity has.
const maxFile = 64 << 10

func open(ctx context.Context, uri string) (*keyhelper.Key, error) {
	name, isFile := strings.CutPrefix(uri, "age:")
	if !isFile {
		r, err := age.ParseRecipient(ctx, uri, nil)
		if err != nil {
			return nil, err
		}
		return &keyhelper.Key{Type: age.Type, Resource: r.Resource(), Recipient: r}, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	defer clear(text)
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("age: %s has more than %d bytes", name, maxFile)
	}
	id, err := age.ParseIdentity(string(text), nil)
	if err != nil {
		return nil, err
	}
	r, err := id.Recipient(ctx)
	if err != nil {
		return nil, err
	}
	return &keyhelper.Key{Type: age.Type, Resource: id.Resource(), Recipient: r, Identity: id}, nil
}
