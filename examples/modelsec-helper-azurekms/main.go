// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Modelsec-helper-azurekms is the key helper for Azure Key Vault and Managed
// HSM: it makes azurekms:// URIs work wherever a program takes the URI of a key,
// without the Azure SDK in that program. Standing in PATH is all that it needs;
// credentials are found as package azurekms says.
package main

import (
	"context"

	"github.com/modelsec/modelsec-go/encrypt/azurekms"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

func main() {
	keyhelper.Main(func(_ context.Context, uri string) (*keyhelper.Key, error) {
		k, err := azurekms.New(uri, nil)
		if err != nil {
			return nil, err
		}
		return &keyhelper.Key{Type: k.Type(), Resource: k.Resource(), Recipient: k, Identity: k}, nil
	})
}
