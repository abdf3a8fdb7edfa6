// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Modelsec-helper-pkcs11 is the key helper for hardware security modules: it makes
// pkcs11: URIs work wherever a program takes the URI of a key, and keeps the
// library of the module out of that program. It needs cgo to be built. The library
// is that of module-path or PKCS11_MODULE_PATH, the PIN that of pin-source or
// PKCS11_PIN.
package main

import (
	"context"

	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
	"github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

func main() {
	keyhelper.Main(func(_ context.Context, uri string) (*keyhelper.Key, error) {
		c, err := pkcs11.ParseURI(uri)
		if err != nil {
			return nil, err
		}
		k, err := pkcs11.New(c) // closed by the end of the process
		if err != nil {
			return nil, err
		}
		return &keyhelper.Key{Type: pkcs11.Type, Resource: k.Resource(), Recipient: k, Identity: k}, nil
	})
}
